"""Connection: one open stream of a client. Its id is the session id."""

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
    """The state that all connections of one client share."""

    __slots__ = ("client_id", "metadata", "sessions", "version")

    def __init__(self, client_id: str) -> None:
        self.client_id: str = client_id
        self.metadata: Any = None
        #: The version of the command that set the metadata.
        self.version: tuple[int, int] = (0, 0)
        self.sessions: dict[str, Connection] = {}


class Connection:
    """One open stream of a client. Any thread may call its public methods.

    :ivar id: the session id, unique and random.
    :ivar client_id: the client's id. A client may have several connections.
    :ivar zones: the names of its zones. ``zone`` is the first.
    :ivar connected_at: when the connection was made, in seconds since 1970.
    :ivar closed: why the connection was closed; None if it is open. ``"hang-up"``: the client closed it. ``"stalled"``:
        the client did not read for ``stall_timeout``. ``"shutdown"``: the hub was closed. ``"max_age"``: it was open
        for ``max_age``. ``"ended"``: the production in its only zone has ended. ``"log"``: the log could not be read.
        ``"error"``: the stream failed. ``"disconnected"``, or any other text: the application closed it.
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
        #: The partitions of the log that its zones belong to. Messages without a zone are read from the first, its
        #: home.
        self.partitions: tuple[int, ...] = partitions
        self.connected_at: float = time.time()
        self.closed: str | None = None
        #: The id of the thread that runs its hooks or serves it now; 0 if no thread does.
        self.thread: int = threading.get_ident()
        self.member: Member = Member(self.client_id)
        #: The delivery, which wakes its stream if there is something to send.
        self.delivery: Delivery = delivery
        #: The queue on which the thread that serves it waits.
        self.queue: queue.Queue[Any]
        self.reader: Reader
        self._max_pending = max_pending
        #: All connections share one lock, because ten thousand locks take memory, and it is only held for an instant.
        self._lock = lock
        #: True after the stream has ended. Before that, an event if a thread waits for the end, otherwise False.
        self._ended: threading.Event | bool = False

    def open(self, log: Readable, cache: PageCache, start: StartPosition, settings: HubSettings) -> None:
        """Find its place in the log. If this process lags behind the log, this may block until it has caught up.

        :raises LogError: if the log cannot be reached.
        """
        interest = Interest(self.zones, self.client_id)
        self.reader = Reader(log, cache, interest, self.id, start.find(log, interest), settings.max_replay)

    def __repr__(self) -> str:
        state = f"closed: {self.closed}" if self.closed else "open"
        return f"<Connection {self.client_id!r} session {self.id} in {', '.join(map(repr, self.zones))}, {state}>"

    @property
    def zone(self) -> str:
        """The first of the connection's zones."""
        return self.zones[0]

    @property
    def metadata(self) -> Any:
        """The client's metadata, which the application has set. All connections of the client share it."""
        return self.member.metadata

    @property
    def home(self) -> int:
        """The first of its partitions."""
        return self.partitions[0]

    @property
    def lag(self) -> int:
        """The number of messages in the log that the connection has not read yet."""
        return self.reader.lag

    def send(self, message: Any, *, event: str | None = None, default: Callable[[Any], Any] | None = None) -> bool:
        """Send a message to this connection only. It is not in the log, so it is not sent again after a reconnection.

        The message comes after all messages that the hub has sent to everyone before. There is one exception: messages
        that the connection's own hooks send come first, before the messages of the log that the client has missed.

        :param message: a :class:`Message`, a text, or any other value, which is encoded as JSON.
        :param event: the event type, if ``message`` is not a :class:`Message`.
        :param default: encodes objects that JSON cannot encode; see :meth:`Message.from_json`.
        :returns: False if the connection has ended.
        :raises Backlogged: if ``max_pending`` such messages are queued already.
        :raises ValueError: if the message has an id (the client would come back with it, but the log does not know it),
            a type that is reserved for hubs, or a reconnection time of more than a day.
        :raises TypeError: if ``message`` is None, or contains an object that JSON cannot encode.
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
        """Ask the stream to end. It first sends what is pending, in one last chunk. Does not wait for the end.

        :returns: False if the connection was closed already. It keeps the first reason.
        """
        with self._lock:
            if self.closed:
                return False
            self.closed = reason
        self.wake()
        return True

    def wake(self) -> None:
        """Wake the stream, so that it checks what it has to do."""
        self.delivery.wake(self)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the stream has ended and its hooks have run.

        :param timeout: seconds; None for no limit.
        :returns: False if the stream has not ended in this time.
        """
        with self._lock:
            if self._ended is True:
                return True
            if self._ended is False:
                self._ended = threading.Event()
            ended = self._ended
        return ended.wait(timeout)

    def end(self) -> None:
        """Wake all threads that wait for the end. The hub calls this after the last hook."""
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
    """Return a message for a value that an application sends.

    :param value: a :class:`Message`, a text, or any other value, which is encoded as JSON.
    :param event: the event type; None for ``"message"``.
    :param id: the event id; None: the log assigns one.
    :param default: encodes objects that JSON cannot encode; see :meth:`Message.from_json`.
    :raises TypeError: if the value is None, contains an object that JSON cannot encode, or is a :class:`Message` and
        another argument is given.
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
