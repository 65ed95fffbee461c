"""Connection: one client's place in the hub, and the thread that waits there."""

from __future__ import annotations

import json
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ssehub.exceptions import Backlogged, LogError
from ssehub.log import ALL, Entry, Gap, Order, Readable
from ssehub.log.packet import check_type
from ssehub.server.delays import Delays
from ssehub.server.pace import Pace, jitter
from ssehub.server.pages import Pages
from ssehub.server.parking import Parking
from ssehub.server.reader import Reader
from ssehub.server.relay import Relay
from ssehub.server.start import Start
from ssehub.wire import Message

logger = logging.getLogger("ssehub")

#: Reasons after which nobody is there to read a last chunk.
_DEAD = ("hang-up", "stalled")


class Member:
    """Hold what the sessions of one client share."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.metadata: Any = None
        #: That of the order by which it was noted.
        self.version = (0, 0)
        self.sessions: dict[str, Connection] = {}


class Connection:
    """Be one session of one client.

    The thread that serves the request iterates it; any other thread may call every other public method.

    :ivar id: the session's id, unique and random.
    :ivar client_id: the client's id; several sessions may share it.
    :ivar zones: names of the zones it is in; ``zone`` is the first.
    :ivar connected_at: when it was made, in seconds since 1970.
    :ivar closed: why it was closed, or None. ``"hang-up"``: the client left. ``"stalled"``: it did not read for too
        long. ``"shutdown"``: the hub closed. ``"max_age"``: its time was over. ``"disconnected"``, or any other text:
        the application closed it. ``"log"``: the log could not be read. ``"error"``: its thread failed.
    """

    def __init__(
        self,
        log: Readable,
        lanes: tuple[int, ...],
        pages: Pages,
        parking: Parking,
        relay: Relay,
        pace: Pace,
        zones: Sequence[str],
        client_id: str | None,
        start: Start,
        on_gap: Callable[[Connection, Gap], None],
    ) -> None:
        self.id = secrets.token_hex(8)
        self.client_id = client_id if client_id is not None else self.id
        self.zones = tuple(zones)
        #: The lanes of the log that its zones are in. What is in every lane it takes from the first, its home.
        self.lanes = lanes
        self.connected_at = time.time()
        self.closed: str | None = None
        self.thread = threading.get_ident()
        self.member = Member(self.client_id)
        #: What its thread blocks on; what is put there is its turn to wake.
        self.turn: queue.Queue[None] = queue.Queue()
        #: When the write began that is still going on (``time.monotonic()``), else None.
        self.writing_since: float | None = None
        self.sent_bytes = 0
        #: For each write, how long before its end its oldest message was sent.
        self.delays = Delays()
        #: When it has to wake for a heartbeat, or because it is too old (``time.monotonic()``).
        self.alarm = 0.0
        self._tail = log.tail
        self._parking = parking
        self._relay = relay
        self._pace = pace
        self._beat = jitter(pace.heartbeat)
        self._expires = time.monotonic() + jitter(pace.max_age) if pace.max_age else float("inf")
        self._closing = threading.Lock()
        self._ended = threading.Event()
        self.reader = Reader(
            log, pages, start.place(log, self.wants), self.zones, self.wants, self._fire_gap, pace.max_replay
        )
        self._on_gap = on_gap

    def __repr__(self) -> str:
        state = f"closed: {self.closed}" if self.closed else "open"
        return f"<Connection {self.client_id!r} session {self.id} in {', '.join(self.zones)}, {state}>"

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
        """The first of its lanes."""
        return self.lanes[0]

    def wants(self, entry: Entry) -> bool:
        """Tell whether an entry is for this connection. An order never is: it is carried out on delivery."""
        packet = entry.packet
        if packet.zone is ALL:
            if entry.position.lane != self.lanes[0]:
                return False
        elif packet.zone not in self.zones:
            return False
        if packet.client_id is not None and packet.client_id != self.client_id:
            return False
        return self.id not in packet.exclude and not isinstance(packet, Order)

    def send(self, message: Message | str) -> bool:
        """Send to this session alone, past the log: it is not replayed after a reconnection.

        It comes after what was sent to everybody before. What the connection's own hooks send comes first: before what
        it has to catch up on.

        :returns: False if the connection has ended.
        :raises Backlogged: if ``max_pending`` such messages are waiting already.
        :raises ValueError: if the message has an id: the client would come back with it, and no log knows it; or a
            type that is the hub's own.
        """
        message = as_message(message)
        check_type(message)
        if message.id is not None:
            raise ValueError("a message to one session cannot have an id, because it is not in the log")
        if self.closed:
            return False
        if self.reader.private >= self._pace.max_pending:
            raise Backlogged(f"{self._pace.max_pending} messages wait already for session {self.id}")
        is_own = threading.get_ident() == self.thread
        self.reader.add_private(message.encode(), None if is_own else self._tail())
        self.wake()
        return True

    def close(self, reason: str = "disconnected") -> bool:
        """Ask the stream to end; its thread sends what is due in one last chunk and goes.

        :returns: False if it was closed already; the first reason stays.
        """
        with self._closing:
            if self.closed:
                return False
            self.closed = reason
        self.wake()
        return True

    def wake(self) -> None:
        """Wake its thread, if it sleeps."""
        self._relay.enlist(self._parking.unpark((self,)))

    @property
    def lag(self) -> int:
        """The number of entries of the log it has yet to look at; 0 for one that is level."""
        return self._parking.lag(self)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the stream has ended and its hooks have run.

        :param timeout: seconds; None for no limit.
        :returns: False if it is still there.
        """
        return self._ended.wait(timeout)

    def end(self) -> None:
        """Release whoever waits for the end; the hub calls this last."""
        self._ended.set()

    def due(self) -> bytes:
        """Take what this connection is due now, as bytes; empty if nothing. Only one thread at a time may take."""
        return self.reader.take()

    def __iter__(self) -> Iterator[bytes]:
        """Be the body of the response: block until something is due, and give it as a chunk of bytes."""
        for chunk in self._chunks():
            self.sent_bytes += len(chunk)
            self.writing_since = time.monotonic()
            yield chunk
            self.writing_since = None
            if self.reader.sent > self.connected_at:  # others had to wait for the client
                self.delays.add(time.time() - self.reader.sent)
                self.reader.sent = 0.0
            self.alarm = min(time.monotonic() + self._beat, self._expires)

    def _chunks(self) -> Iterator[bytes]:
        # No server sends the headers before the first chunk that is not empty.
        yield self._preamble()
        while self.closed not in _DEAD:
            try:
                chunk = self.due()
            except LogError as error:  # when the client comes back with its place, it may be known what follows
                logger.warning("a stream was ended: %s", error)
                chunk = b""
                self.close("log")
            if chunk:
                yield chunk
            now = time.monotonic()
            if now >= self._expires:
                self.close("max_age")
            if self.closed:
                yield self._pace.farewell()
                return
            if chunk:
                continue
            if now >= self.alarm:
                yield self.reader.heartbeat()
            elif self._parking.park(self):
                self._sleep()

    def _preamble(self) -> bytes:
        # With the cursor, a client that is cut off before its first message still knows where it stood.
        who = json.dumps({"session_id": self.id, "client_id": self.client_id})
        return Message(who, "ssehub.open", id=self.reader.cursor(), retry=self._pace.retry).encode()

    def _sleep(self) -> None:
        """Block until there is a turn, and pass it on before anything else."""
        try:
            self.turn.get()
        except BaseException:  # a greenlet that is killed takes no turn with it
            if not self._parking.unpark((self,)):
                self._relay.withdraw(self)
            raise
        self._relay.pass_on()

    def _fire_gap(self, gap: Gap) -> None:
        self._on_gap(self, gap)


def as_message(message: Message | str) -> Message:
    """Take a text for a message of the default type.

    :raises TypeError: if it is neither.
    """
    return message if isinstance(message, Message) else Message(message)
