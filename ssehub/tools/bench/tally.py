"""Tally: what all streams together have received, and whether it was right."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssehub.events import Message
from ssehub.tools.bench.histogram import Histogram
from ssehub.tools.bench.stream import Stream

#: Faults told in words, and gaps told with what the hub said.
_SAMPLES, _GAPS = 20, 1000


class Numbered(NamedTuple):
    """What the data of a message that was made for counting says."""

    sender: str
    number: int
    #: ``time.monotonic()`` when it was due to be sent.
    due: float


class ToldGap(NamedTuple):
    """A gap that the hub has told."""

    stream: int
    #: The number the stream was due next of its one sender; None if it had none yet.
    next: int | None
    data: str


class Tally:
    """Count messages and gaps since the last reset. For one thread.

    :param read: reads a message's data; None for one that is not ours.
    """

    def __init__(self, read: Callable[[str], Numbered | None]) -> None:
        # A message comes to many streams within a short while.
        self._read = functools.lru_cache(1024)(read)
        self.reset()

    def reset(self) -> None:
        """Count from zero."""
        self.latency: Histogram = Histogram()
        self.first_arrival: float | None = None
        self.last_arrival: float | None = None
        #: Messages that are not ours.
        self.others: int = 0
        self.gaps: int = 0
        #: Messages that gaps say are missing, as far as they say.
        self.told_missing: int = 0
        self.gap_events: list[ToldGap] = []
        self.faults: list[str] = []

    def take(self, stream: Stream, arrival: float, messages: Sequence[Message]) -> None:
        """Count messages that a stream got."""
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
    """Return how many messages a gap says are missing; 0 if it does not know."""
    try:
        return int(json.loads(data or "")["missed"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0
