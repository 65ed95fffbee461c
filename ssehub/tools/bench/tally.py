"""Tally: counts the messages of all streams, and checks them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssehub.events import Message
from ssehub.tools.bench.histogram import Histogram
from ssehub.tools.bench.stream import Stream

#: Maximum number of faults that are described, and of gaps whose data is kept.
_SAMPLES, _GAPS = 20, 1000


class Numbered(NamedTuple):
    """The content of a numbered message."""

    sender: str
    number: int
    #: The time at which it was due (``time.monotonic()``).
    due: float


class ToldGap(NamedTuple):
    """A gap that the hub has reported."""

    stream: int
    #: The next expected number of the stream's single sender; None if none had arrived.
    next: int | None
    data: str


class Tally:
    """Counts messages and gaps since the last reset. Not thread-safe.

    :param read: parses the data of a message; returns None if the message is not ours.
    """

    def __init__(self, read: Callable[[str], Numbered | None]) -> None:
        # A message arrives at many streams within a short time.
        self._read = functools.lru_cache(1024)(read)
        self.reset()

    def reset(self) -> None:
        """Reset the counts."""
        self.latency: Histogram = Histogram()
        self.first_arrival: float | None = None
        self.last_arrival: float | None = None
        #: Number of messages that are not ours.
        self.others: int = 0
        self.gaps: int = 0
        #: Number of missing messages according to the gaps, if they contain it.
        self.told_missing: int = 0
        self.gap_events: list[ToldGap] = []
        self.faults: list[str] = []

    def take(self, stream: Stream, arrival: float, messages: Sequence[Message]) -> None:
        """Count messages that a stream has received."""
        latencies = []
        for message in messages:
            if message.event != "message" and message.event.startswith("ssehub."):
                if message.event == "ssehub.gap":
                    self._take_gap(stream, message.data or "")
                continue
            numbered = self._read(message.data or "")
            if numbered is None:
                self.others += 1
                continue
            sender, number, due = numbered
            latencies.append(arrival - due)
            fault = stream.order(sender).take(number)
            if fault and len(self.faults) < _SAMPLES:
                self.faults.append(f"stream {stream.number}: {fault}")
        if latencies:
            if self.first_arrival is None:
                self.first_arrival = arrival
            self.last_arrival = max(arrival, self.last_arrival or arrival)
            self.latency.extend(latencies)

    def _take_gap(self, stream: Stream, data: str) -> None:
        self.gaps += 1
        self.told_missing += told_missing(data)
        if len(self.gap_events) < _GAPS:
            due = next((order.next for order in stream.orders.values()), stream.first)
            self.gap_events.append(ToldGap(stream.number, due, data))


def told_missing(data: str | None) -> int:
    """Return the number of missing messages in the data of a gap; 0 if it is unknown."""
    try:
        return int(json.loads(data or "")["missed"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0
