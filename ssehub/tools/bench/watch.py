"""Watch: checks messages of other senders by the cursors that a hub gives each message."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from ssehub.events import Message
from ssehub.log.position import Position
from ssehub.tools.bench.histogram import Histogram
from ssehub.tools.bench.stream import Stream
from ssehub.tools.bench.tally import told_missing

#: Number of messages that are remembered. Later ones are counted but not checked.
_KEPT = 200_000

#: Epoch and offset.
_Place = tuple[int, int]


class _Trace:
    """The messages of one stream: the place where it began, its last place, and the number of messages in between."""

    __slots__ = ("count", "first", "last")

    def __init__(self, first: _Place) -> None:
        self.first = self.last = first
        self.count = 0


class Watch:
    """Compares the streams with each other; all follow the same zones. Not thread-safe.

    A message without a cursor of its own, or with one of a log with several partitions, is only counted.

    :ivar spread: seconds from the first arrival of a message at any stream to its arrival at each other.
    :ivar backwards: number of messages that arrived after a later one, or repeatedly.
    """

    def __init__(self) -> None:
        self.spread: Histogram = Histogram()
        self.received: int = 0
        self.judged: int = 0
        self.cursors: int = 0
        self.gaps: int = 0
        self.told_missing: int = 0
        self.backwards: int = 0
        #: The time of the first arrival of each message.
        self._arrivals: dict[_Place, float] = {}
        self._traces: dict[int, _Trace] = {}

    @property
    def messages(self) -> int:
        """The number of different messages."""
        return len(self._arrivals)

    def take(self, stream: Stream, arrival: float, messages: Sequence[Message]) -> None:
        """Count messages that a stream has received."""
        for message in messages:
            self._take_one(stream, arrival, message)

    def _take_one(self, stream: Stream, arrival: float, message: Message) -> None:
        position = Position.parse(message.id or "")
        place = None if position is None or position.partition else (position.epoch, position.offset)
        if message.event.startswith("ssehub."):
            self._take_own(stream, message, place)
            return
        self.received += 1
        if place is not None:
            self._judge(self._traces.setdefault(stream.number, _Trace((place[0], place[1] - 1))), place, arrival)

    def missing(self, streams: list[Stream], before: float) -> int:
        """Return how many messages have not arrived at all streams, of those that arrived anywhere before a time."""
        places = sorted(place for place, arrival in self._arrivals.items() if arrival < before)
        count = 0
        for stream in streams:
            trace = self._traces.get(stream.number)
            if trace is not None:
                due = len(places) - bisect.bisect_right(places, trace.first)
                count += max(0, due - trace.count)
        return count

    def _take_own(self, stream: Stream, message: Message, place: _Place | None) -> None:
        if message.event == "ssehub.open" and place is not None:
            self._traces.setdefault(stream.number, _Trace(place))
        elif message.event == "ssehub.cursor":
            self.cursors += 1
        elif message.event == "ssehub.gap":
            self.gaps += 1
            self.told_missing += told_missing(message.data)

    def _judge(self, trace: _Trace, place: _Place, arrival: float) -> None:
        if place == trace.last:  # a message without an id has the place of the previous one
            return
        if place not in self._arrivals:
            if len(self._arrivals) >= _KEPT:
                return
            self._arrivals[place] = arrival
        self.judged += 1
        self.spread.add(arrival - self._arrivals[place])
        if place < trace.last:
            self.backwards += 1
        else:
            trace.last = place
            trace.count += 1
