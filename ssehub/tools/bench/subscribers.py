"""Subscribers: many streams, which are connected a few at a time, and reconnected when they end."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from ssehub.events import Message
from ssehub.tools.bench.histogram import Histogram
from ssehub.tools.bench.loop import Loop
from ssehub.tools.bench.stream import Stream
from ssehub.tools.bench.target import Target

#: Concurrent attempts: a server with threads starts one for each, and its accept queue is limited.
AT_ONCE = 64
#: Seconds of processing received data between two polls of the sockets.
_PARSE_FOR = 0.001
#: Number of unprocessed bytes above which they are processed first, at the cost of exact arrival times.
_BACKLOG = 1 << 28
#: Seconds between two checks for attempts that take too long.
_LOOK = 0.25
#: Maximum number of attempts and openings whose times are kept.
_KEPT = 1_000_000


class Subscribers:
    """The streams, and statistics about them. Everything happens in the loop's thread.

    :param take: called with a stream, the arrival time of messages, and the messages.
    :param at_once: maximum number of concurrent attempts.
    :param keep: whether a connection that the server leaves open is reused, as browsers do.
    :param patience: maximum number of seconds from an attempt to the first bytes of its stream.

    :ivar connects: seconds until a connection was established.
    :ivar first_bytes: seconds from the request to the first bytes of the stream.
    :ivar attempts: the times at which streams started to connect, or sent a request on an open connection.
    :ivar comings: the times at which streams were opened.
    :ivar ends: the reasons why open streams have ended.
    :ivar failures: the reasons why attempts have failed.
    """

    def __init__(
        self,
        loop: Loop,
        take: Callable[[Stream, float, Sequence[Message]], None],
        *,
        at_once: int = AT_ONCE,
        keep: bool = False,
        patience: float = 30.0,
    ) -> None:
        self.loop = loop
        self.keep = keep
        self.take = take
        self.streams: list[Stream] = []
        self.unparsed: deque[Stream] = deque()
        self.backlog = 0
        self.connects: Histogram = Histogram()
        self.first_bytes: Histogram = Histogram()
        self.attempts: deque[float] = deque(maxlen=_KEPT)
        self.comings: deque[float] = deque(maxlen=_KEPT)
        self.ends: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._at_once = at_once
        self._patience = patience
        self._waiting: deque[Stream] = deque()
        self._connecting: set[Stream] = set()
        loop.idle = self._parse_some
        loop.pressed = lambda: self.backlog > _BACKLOG
        loop.call_at(time.monotonic() + _LOOK, self._look)

    def add(
        self,
        target: Target,
        count: int,
        *,
        first: int | None = None,
        paused: int = 0,
        receive_buffer: int | None = None,
    ) -> None:
        """Add streams.

        :param first: the first expected number of each sender; None: any.
        :param paused: how many of them stop reading when they are open.
        :param receive_buffer: size of the kernel's receive buffer of the paused streams in bytes. A small one makes
            them stall soon.
        """
        for n in range(count):
            stream = Stream(self, len(self.streams), target, first, n < paused, receive_buffer)
            self.streams.append(stream)
            self._waiting.append(stream)
        self._connect_more()

    @property
    def open(self) -> int:
        """The number of open streams."""
        return sum(stream.is_open for stream in self.streams)

    @property
    def refusals(self) -> Counter[str]:
        """The reasons of refusals after which streams do not reconnect."""
        return Counter(stream.refused for stream in self.streams if stream.refused)

    @property
    def reconnects(self) -> int:
        """How many times a stream was opened again."""
        return sum(max(0, stream.opened - 1) for stream in self.streams)

    def close(self) -> None:
        """End all streams."""
        for stream in self.streams:
            stream.close()

    def look_at_all(self) -> None:
        """Process all received data."""
        while self._parse_some():
            pass

    # Called by the streams

    def note_open(self, stream: Stream, arrival: float) -> None:
        """Note that a stream was opened."""
        self.first_bytes.add(arrival - stream.began)
        self.comings.append(arrival)
        self._connecting.discard(stream)
        self._connect_more()

    def note_refused(self, stream: Stream) -> None:
        """Note that the response to a stream's request was not a stream. It does not reconnect."""
        self._connecting.discard(stream)
        self._connect_more()

    def note_end(self, stream: Stream, was_open: bool, why: str, again: float) -> None:
        """Note that a stream has ended, or that an attempt has failed."""
        (self.ends if was_open else self.failures)[why] += 1
        self._connecting.discard(stream)
        self.loop.call_at(again, lambda: self._come_again(stream))
        self._connect_more()

    def _come_again(self, stream: Stream) -> None:
        self._waiting.append(stream)
        self._connect_more()

    def _connect_more(self) -> None:
        while self._waiting and len(self._connecting) < self._at_once:
            stream = self._waiting.popleft()
            self._connecting.add(stream)
            self.attempts.append(time.monotonic())
            stream.connect()

    def _look(self) -> None:
        now = time.monotonic()
        for stream in list(self._connecting):
            if stream.began + self._patience < now:
                stream.cut(TimeoutError(f"no stream within {self._patience:g} s"))
        self.loop.call_at(now + _LOOK, self._look)

    def _parse_some(self) -> bool:
        until = time.monotonic() + _PARSE_FOR
        while self.unparsed and time.monotonic() < until:
            self.unparsed.popleft().parse()
        return bool(self.unparsed)
