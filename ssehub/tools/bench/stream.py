"""Stream: one subscriber, which reconnects as a browser does.

:class:`~ssehub.Client` has the same rules for one stream in one thread. Here thousands share a thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ssehub.events import Decoder
from ssehub.exceptions import EventTooLarge
from ssehub.tools.bench.body import Body
from ssehub.tools.bench.connection import Connection
from ssehub.tools.bench.sequence_check import SequenceCheck
from ssehub.tools.bench.target import Target

if TYPE_CHECKING:
    from ssehub.tools.bench.subscribers import Subscribers

#: Seconds before a browser reconnects to a stream without a ``retry`` field.
_RETRY = 3.0
#: Seconds before a subscriber tries again that has not had a stream yet.
_RETRY_FIRST = 0.1
_MAX_EVENT = 1 << 24


class Stream:
    """One event stream, over any number of connections. Everything happens in the loop's thread.

    :param first: the first expected number of each sender; None: any.
    :param paused: whether it stops reading when the stream is open.

    :ivar is_open: whether the stream is open: its first bytes have arrived, and it has not ended.
    :ivar opened: how many times the stream was opened.
    :ivar refused: the reason in a response that is not a stream, after which it does not reconnect; or empty.
    :ivar orders: the sequence check of each sender.
    """

    def __init__(
        self,
        subscribers: Subscribers,
        number: int,
        target: Target,
        first: int | None,
        paused: bool,
        receive_buffer: int | None,
    ) -> None:
        self.number = number
        self.first = first
        self.paused: bool = paused
        self.is_open: bool = False
        self.opened: int = 0
        self.refused: str = ""
        self.orders: dict[str, SequenceCheck] = {}
        self.began: float = 0.0
        self._subscribers = subscribers
        self._target = target
        self._receive_buffer = receive_buffer
        self._connection: Connection | None = None
        #: Whether an attempt or a stream is in progress.
        self._live = False
        #: Whether it uses the previous connection again.
        self._kept = False
        self._retry = _RETRY
        self._body = Body()
        self._decoder = Decoder(max_event_size=_MAX_EVENT)
        #: Received data, each with the time of its arrival.
        self._unparsed: list[tuple[float, bytes | OSError | None]] = []

    def order(self, sender: str) -> SequenceCheck:
        """Return the sequence check of a sender."""
        order = self.orders.get(sender)
        if order is None:
            order = self.orders[sender] = SequenceCheck(self.first)
        return order

    def connect(self) -> None:
        """Start an attempt, on the previous connection if it is still open."""
        self._body = Body()
        self._decoder = Decoder(self._decoder.last_event_id, max_event_size=_MAX_EVENT)
        self.began = time.monotonic()
        self._live = True
        self._kept = self._connection is not None
        try:
            if self._connection is not None:
                self._ask(self._connection)
                return
            self._connection = Connection(
                self._subscribers.loop, self._target, self, self._receive_buffer if self.paused else None
            )
        except OSError as error:
            self.lost(error)

    def ready(self) -> None:
        """Request the stream."""
        assert self._connection is not None
        now = time.monotonic()
        self._subscribers.connects.add(now - self.began)
        self.began = now
        self._ask(self._connection)

    def _ask(self, connection: Connection) -> None:
        lines = [b"Accept: text/event-stream", b"Cache-Control: no-cache"]
        if last := self._decoder.last_event_id:
            lines.append(b"Last-Event-ID: " + last.encode())
        connection.write(self._target.request("GET", *lines))

    def received(self, data: bytes) -> None:
        """Store received data and its time. It is processed later."""
        if not self._unparsed:
            self._subscribers.unparsed.append(self)
        self._unparsed.append((time.monotonic(), data))
        self._subscribers.backlog += len(data)

    def lost(self, error: OSError | None) -> None:
        """Note that the connection has ended."""
        if not self._unparsed:
            self._subscribers.unparsed.append(self)
        self._unparsed.append((time.monotonic(), error))

    def cut(self, error: OSError | None) -> None:
        """Close the connection, and count it as ended."""
        self.close()
        self.lost(error)

    def close(self) -> None:
        """Close the connection, and count nothing."""
        if self._connection is not None:
            self._connection.close()

    def resume(self) -> None:
        """Continue reading."""
        self.paused = False
        if self._connection is not None:
            self._connection.resume()

    def parse(self) -> None:
        """Process all received data."""
        pieces, self._unparsed = self._unparsed, []
        for arrival, piece in pieces:
            if isinstance(piece, bytes):
                self._subscribers.backlog -= len(piece)
                if self._live:
                    self._take(arrival, piece)
            elif not self._live:  # the idle connection was closed
                self._connection = None
            elif self._kept and not self._body.status:  # the server closed it at that moment
                self._connection = None
                self.connect()
            else:
                self._end(arrival, "the server ended it" if piece is None else piece.strerror or str(piece))

    def _take(self, arrival: float, data: bytes) -> None:
        try:
            content = self._body.feed(data)
            if self._body.status and not self.is_open and (refusal := self._refusal()):
                self._refuse(refusal)
                return
            if content and not self.is_open:
                self._open(arrival)
            self._subscribers.take(self, arrival, self._decoder.feed(content))
        except (ValueError, EventTooLarge) as error:
            self._refuse(str(error))
            return
        if self._body.ended:
            self._end(arrival, "the server ended it")

    def _refusal(self) -> str:
        # "If res's status is not 200, or if res's `Content-Type` is not `text/event-stream`, then fail the
        # connection." (WHATWG HTML 9.2.3)
        body = self._body
        if body.status != 200:
            return f"{body.status} {body.reason}".strip()
        return "" if body.type == "text/event-stream" else f"not an event stream but {body.type or 'without a type'}"

    def _refuse(self, why: str) -> None:
        self.close()
        self._connection = None
        self._live = self.is_open = False
        self.refused = why
        self._subscribers.note_refused(self)

    def _open(self, arrival: float) -> None:
        self.is_open = True
        self.opened += 1
        self._subscribers.note_open(self, arrival)
        if self.paused and self._connection is not None:
            self._connection.pause()

    def _end(self, arrival: float, why: str) -> None:
        """Reconnect after the time that the stream has sent, or soon if there was no stream yet."""
        if not (self._subscribers.keep and self._body.ended and self._body.keeps):
            self.close()
            self._connection = None
        if self._decoder.reconnection_time is not None:
            self._retry = self._decoder.reconnection_time / 1000
        was_open = self.is_open
        self._live = self.is_open = False
        self._subscribers.note_end(self, was_open, why, arrival + (self._retry if self.opened else _RETRY_FIRST))
