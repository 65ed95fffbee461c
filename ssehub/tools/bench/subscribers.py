"""Subscribers: many streams, which are connected a few at a time, read, and connected again when they end."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from ssehub.events import Message
from ssehub.tools.bench.histogram import Histogram
from ssehub.tools.bench.loop import Loop
from ssehub.tools.bench.stream import Stream
from ssehub.tools.bench.target import Target

#: Attempts under way at a time: a server of threads starts one for each, and its accept queue is finite.
AT_ONCE = 64
#: Seconds of looking at what came between two looks at the sockets.
_PARSE_FOR = 0.001
#: Bytes that came and were not looked at: beyond this, exact arrival times are given up for memory.
_BACKLOG = 1 << 28
#: Seconds between two looks for attempts that take too long.
_LOOK = 0.25
#: Attempts and comings kept with their times.
_KEPT = 1_000_000


class Subscribers:
    """Hold the streams, and count what becomes of them. Everything happens in the loop's thread.

    :param take: called with a stream, the time at which it got messages, and the messages.
    :param at_once: attempts that are under way at a time.
    :param keep: whether a connection that the server leaves open is used again, as browsers do.
    :param patience: seconds an attempt may take until the first bytes of the stream.

    :ivar connects: seconds until a connection stood.
    :ivar first_bytes: seconds from the request to the first bytes of the stream.
    :ivar attempts: when streams began to connect, or to ask over the connection they had.
    :ivar comings: when streams got there.
    :ivar ends: why streams have ended that were there.
    :ivar failures: why attempts failed.
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
        """Let more streams come.

        :param first: the number due first of each sender; None: whichever comes first.
        :param paused: how many of them stop reading once they are there.
        :param receive_buffer: bytes of the kernel's buffer of those, so that they stall soon.
        """
        for n in range(count):
            stream = Stream(self, len(self.streams), target, first, n < paused, receive_buffer)
            self.streams.append(stream)
            self._waiting.append(stream)
        self._connect_more()

    @property
    def open(self) -> int:
        """How many are there."""
        return sum(stream.is_open for stream in self.streams)

    @property
    def refusals(self) -> Counter[str]:
        """What those were answered that do not come back."""
        return Counter(stream.refused for stream in self.streams if stream.refused)

    @property
    def reconnects(self) -> int:
        """How many times a stream got there again."""
        return sum(max(0, stream.opened - 1) for stream in self.streams)

    def close(self) -> None:
        """End all streams."""
        for stream in self.streams:
            stream.close()

    def look_at_all(self) -> None:
        """Look at all that came so far."""
        while self._parse_some():
            pass

    # What a stream tells

    def note_open(self, stream: Stream, arrival: float) -> None:
        """Take notice that a stream got there."""
        self.first_bytes.add(arrival - stream.began)
        self.comings.append(arrival)
        self._connecting.discard(stream)
        self._connect_more()

    def note_refused(self, stream: Stream) -> None:
        """Take notice that a stream got something else, and does not come back."""
        self._connecting.discard(stream)
        self._connect_more()

    def note_end(self, stream: Stream, was_open: bool, why: str, again: float) -> None:
        """Take notice that a stream has ended, or an attempt failed."""
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
