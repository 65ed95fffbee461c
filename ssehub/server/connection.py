"""Connection: one session of one client."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ssehub.events import Message
from ssehub.exceptions import Backlogged
from ssehub.log import Interest, Readable
from ssehub.log.packet import check_fields, check_type, warn_of_type
from ssehub.server.page_cache import PageCache
from ssehub.server.reader import Reader
from ssehub.server.settings import HubSettings
from ssehub.server.start_position import StartPosition

if TYPE_CHECKING:
    import queue

    from ssehub.server.wakeups import Delivery


class Member:
    """What the sessions of one client share."""

    __slots__ = ("client_id", "metadata", "sessions", "version")

    def __init__(self, client_id: str) -> None:
        self.client_id: str = client_id
        self.metadata: Any = None
        #: That of the command by which the metadata was set.
        self.version: tuple[int, int] = (0, 0)
        self.sessions: dict[str, Connection] = {}


class Connection:
    """One session of one client. Any thread may call its public methods.

    :ivar id: the session's id, unique and random.
    :ivar client_id: the client's id; several sessions may share it.
    :ivar zones: names of the zones it is in; ``zone`` is the first.
    :ivar connected_at: when it was made, in seconds since 1970.
    :ivar closed: why it was closed, or None. ``"hang-up"``: the client left. ``"stalled"``: it did not read for too
        long. ``"shutdown"``: the hub closed. ``"max_age"``: its time was over. ``"disconnected"``, or any other text:
        the application closed it. ``"log"``: the log could not be read. ``"error"``: the stream failed.
    """

    __slots__ = (
        "__weakref__", "_ended", "_lock", "_max_pending", "client_id", "closed", "connected_at", "delivery", "id",
        "member", "partitions", "queue", "reader", "thread", "zones",
    )  # fmt: skip

    def __init__(
        self,
        zones: tuple[str, ...],
        client_id: str | None,
        partitions: tuple[int, ...],
        delivery: Delivery,
        lock: threading.Lock,
        max_pending: int,
    ) -> None:
        self.id: str = secrets.token_hex(8)
        self.client_id: str = client_id if client_id is not None else self.id
        self.zones: tuple[str, ...] = zones
        #: The partitions of the log that its zones are in. Messages without a zone are read from the first, its home.
        self.partitions: tuple[int, ...] = partitions
        self.connected_at: float = time.time()
        self.closed: str | None = None
        #: The thread that runs its hooks now, or serves it; 0 if there is none.
        self.thread: int = threading.get_ident()
        self.member: Member = Member(self.client_id)
        #: How its stream is told that there is something to send.
        self.delivery: Delivery = delivery
        #: What the thread that serves it blocks on.
        self.queue: queue.Queue[Any]
        self.reader: Reader
        self._max_pending = max_pending
        #: Shared by all connections: it is held for an instant, and ten thousand locks are memory.
        self._lock = lock
        #: True once the stream has ended; before that, what its waiters wait for.
        self._ended: threading.Event | bool = False

    def open(self, log: Readable, cache: PageCache, start: StartPosition, settings: HubSettings) -> None:
        """Find its place in the log. It may block for as long as this process lags behind the log.

        :raises LogError: if the log cannot be reached.
        """
        interest = Interest(self.zones, self.client_id)
        self.reader = Reader(log, cache, interest, self.id, start.find(log, interest), settings.max_replay)

    def __repr__(self) -> str:
        state = f"closed: {self.closed}" if self.closed else "open"
        return f"<Connection {self.client_id!r} session {self.id} in {', '.join(map(repr, self.zones))}, {state}>"

    @property
    def zone(self) -> str:
        """The first of its zones."""
        return self.zones[0]

    @property
    def metadata(self) -> Any:
        """What the application has noted about the client; its sessions share it."""
        return self.member.metadata

    @property
    def home(self) -> int:
        """The first of its partitions."""
        return self.partitions[0]

    @property
    def lag(self) -> int:
        """The number of messages of the log that it has yet to take; 0 if it is level."""
        return self.reader.lag

    def send(self, message: Any, *, event: str | None = None, default: Callable[[Any], Any] | None = None) -> bool:
        """Send to this session alone, past the log: the message is not replayed after a reconnection.

        It comes after what was sent to everybody before. Messages that the connection's own hooks send come first:
        before what it has to catch up on.

        :param message: a message, a text, or any other value, which is sent as JSON.
        :param event: the type, if ``message`` is not a :class:`Message`, which has its own.
        :param default: makes JSON of what has no form in it; see :meth:`Message.from_json`.
        :returns: False if the connection has ended.
        :raises Backlogged: if ``max_pending`` such messages are waiting already.
        :raises ValueError: if the message has an id: the client would come back with it, and no log knows it; or a
            type that is the hub's own; or a reconnection time of more than a day.
        :raises TypeError: if the message cannot be made: it is None, or JSON has no form for it.
        """
        message = as_message(message, event, default=default)
        check_type(message)
        if message.id is not None:
            raise ValueError("a message to one session cannot have an id, because it is not in the log")
        check_fields(message)
        warn_of_type(message)
        if self.closed:
            return False
        if self.reader.private >= self._max_pending:
            raise Backlogged(f"{self._max_pending} messages wait already for session {self.id}")
        after = None if threading.get_ident() == self.thread else self.reader.log.end()
        with self._lock:
            self.reader.add_private(message.encode(), after)
        self.wake()
        return True

    def close(self, reason: str = "disconnected") -> bool:
        """Ask the stream to end. It sends what is due in one last chunk. Returns without waiting for that.

        :returns: False if it was closed already; the first reason stays.
        """
        with self._lock:
            if self.closed:
                return False
            self.closed = reason
        self.wake()
        return True

    def wake(self) -> None:
        """Have its stream look at what it has to do."""
        self.delivery.wake(self)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the stream has ended and its hooks have run.

        :param timeout: seconds; None for no limit.
        :returns: False if it is still there.
        """
        with self._lock:
            if self._ended is True:
                return True
            if self._ended is False:
                self._ended = threading.Event()
            ended = self._ended
        return ended.wait(timeout)

    def end(self) -> None:
        """Release all that wait for the end; the hub calls this last."""
        with self._lock:
            waited, self._ended = self._ended, True
        if isinstance(waited, threading.Event):
            waited.set()


def as_message(
    value: Any,
    event: str | None = None,
    id: str | None = None,
    default: Callable[[Any], Any] | None = None,
) -> Message:
    """Make a message of what an application wants to send.

    :param value: a message; a text; or any other value, which becomes JSON.
    :param event: the type; None: ``"message"``.
    :param id: the event's id; None: the log assigns one.
    :param default: makes JSON of what has no form in it; see :meth:`Message.from_json`.
    :raises TypeError: if the value is None, JSON has no form for it, or it is a message and another argument is given.
    :raises ValueError: if the message cannot be sent.
    """
    if isinstance(value, Message):
        if event is not None or id is not None or default is not None:
            raise TypeError("a Message has its own event and id: give event=, id= and default= with other values only")
        return value
    if value is None:
        raise TypeError("the message is None; to send JSON's null, use Message.from_json(None)")
    kind = "message" if event is None else event
    if isinstance(value, str):
        return Message(value, kind, id=id)
    return Message.from_json(value, kind, id=id, default=default)
