"""Connection: one client's place in the hub, and the thread that waits there."""

from __future__ import annotations

import json
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ssehub.exceptions import Backlogged
from ssehub.log import ALL, Entry, Gap, Log, Packet
from ssehub.server.backlog import Backlog
from ssehub.server.pace import Pace, jitter
from ssehub.server.relay import Relay
from ssehub.server.start import Start
from ssehub.wire import Message

#: Reasons after which nobody is there to read a last chunk.
_DEAD = ("hang-up", "stalled")


class Member:
    """Hold what the sessions of one client share."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.metadata: Any = None
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
        the application closed it. ``"error"``: its thread failed.
    """

    def __init__(
        self,
        log: Log,
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
        self.connected_at = time.time()
        self.closed: str | None = None
        self.thread = threading.get_ident()
        self.member = Member(self.client_id)
        #: What its thread blocks on; what is put there is its turn to wake.
        self.turn: queue.Queue[None] = queue.Queue()
        #: When the write began that is still going on (``time.monotonic()``), else None.
        self.writing_since: float | None = None
        self.sent_bytes = 0
        self._relay = relay
        self._pace = pace
        self._lock = threading.Lock()
        self.backlog = Backlog(log, pace, start.place(log, self.wants), self.wants, lambda gap: on_gap(self, gap))
        #: Add an entry to what is due. The hub calls this in the order of the log, and then looks whether it is parked.
        self.pend = self.backlog.pend
        #: True while its thread sleeps, or is about to.
        self.parked = False
        self._in_line = False
        self._ended = threading.Event()
        self._last_write = time.monotonic()
        self._expires = self._last_write + jitter(pace.max_age) if pace.max_age else None

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

    def wants(self, packet: Packet) -> bool:
        """Tell whether a packet is addressed to this connection."""
        if packet.zone is not ALL and packet.zone not in self.zones:
            return False
        if packet.client_id is not None and packet.client_id != self.client_id:
            return False
        return self.id not in packet.exclude

    def send(self, message: Message | str) -> bool:
        """Send to this session alone, past the log: it is not replayed after a reconnection.

        Kept in order with what is pending; one that is behind gets it before what it has to catch up on.

        :returns: False if the connection has ended.
        :raises Backlogged: if ``max_pending`` such messages are waiting already.
        :raises ValueError: if the message has an id: the client would come back with it, and no log knows it.
        """
        message = as_message(message)
        if message.id is not None:
            raise ValueError("a message to one session cannot have an id, because it is not in the log")
        data = message.encode()
        if self.closed:
            return False
        if not self.backlog.pend_private(data):
            raise Backlogged(f"{self._pace.max_pending} messages wait already for session {self.id}")
        self._wake()
        return True

    def close(self, reason: str = "disconnected") -> bool:
        """Ask the stream to end; its thread sends what is pending in one last chunk and goes.

        :returns: False if it was closed already; the first reason stays.
        """
        with self._lock:
            if self.closed:
                return False
            self.closed = reason
        self._wake()
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the stream has ended and its hooks have run.

        :param timeout: seconds; None for no limit.
        :returns: False if it is still there.
        """
        return self._ended.wait(timeout)

    def end(self) -> None:
        """Release whoever waits for the end; the hub calls this last."""
        self._ended.set()

    def stand_in_line(self) -> bool:
        """Tell whether its thread sleeps and has to be put in line; whoever is told so does it."""
        with self._lock:
            if not self.parked or self._in_line:
                return False
            self._in_line = True
            return True

    def due(self) -> bytes:
        """Take what this connection is due now, as bytes; empty if nothing. Only one thread at a time may take."""
        return self.backlog.take()

    def __iter__(self) -> Iterator[bytes]:
        """Be the body of the response: block until something is due, and give it as a chunk of bytes."""
        for chunk in self._chunks():
            self.sent_bytes += len(chunk)
            self.writing_since = time.monotonic()
            yield chunk
            self.writing_since, self._last_write = None, time.monotonic()

    def _chunks(self) -> Iterator[bytes]:
        # No server sends the headers before the first chunk that is not empty.
        yield self._preamble()
        while self.closed not in _DEAD:
            chunk = self.due()
            if chunk:
                yield chunk
            if self.closed:
                yield self._pace.farewell()
                return
            if chunk:
                continue
            patience = self._last_write + jitter(self._pace.heartbeat) - time.monotonic()
            if self._expires is not None:
                patience = min(patience, self._expires - time.monotonic())
            if self._park(max(patience, 0.0)):
                continue
            if self._expires is not None and time.monotonic() >= self._expires:
                self.close("max_age")
            else:
                yield self.backlog.heartbeat()

    def _preamble(self) -> bytes:
        # With the cursor, a client that is cut off before its first message still knows where it stood.
        who = json.dumps({"session_id": self.id, "client_id": self.client_id})
        return Message(who, "ssehub.open", id=self.backlog.cursor(), retry=self._pace.retry).encode()

    def _park(self, timeout: float) -> bool:
        """Block until there is a turn, and pass it on.

        :returns: False if the time was over first.
        """
        # Whoever gives us something gives it first and looks then whether we are parked; we do it the other way round.
        self.parked = True
        try:
            if (self.backlog.has_something() or self.closed) and self._unpark():
                return True
            try:
                self.turn.get(timeout=timeout)
            except queue.Empty:
                if self._unpark():
                    return False
                self.turn.get()  # it stands in line: its turn is on the way
        except BaseException:  # a greenlet that is killed takes no turn with it
            if not self._unpark():
                self._relay.withdraw(self)
            raise
        with self._lock:
            self.parked = self._in_line = False
        self._relay.pass_on()
        return True

    def _unpark(self) -> bool:
        """Wake by ourselves, unless we stand in line."""
        with self._lock:
            self.parked = self._in_line
            return not self._in_line

    def _wake(self) -> None:
        if self.stand_in_line():
            self._relay.enlist((self,))


def as_message(message: Message | str) -> Message:
    """Take a text for a message of the default type.

    :raises TypeError: if it is neither.
    """
    return message if isinstance(message, Message) else Message(message)
