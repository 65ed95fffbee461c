"""Delays: how long messages took from being sent to being written, counted in buckets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

#: Upper bounds of the buckets in seconds; one more has no bound. Precedent: those of Prometheus' clients, begun lower,
#: because most messages take a millisecond.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Delays:
    """Count durations. One thread adds at a time; any may read, and misses at most what is being added.

    :ivar counts: how many durations fell into each bucket; the last has those beyond all bounds.
    :ivar total: their sum, in seconds.
    """

    __slots__ = ("counts", "total")

    def __init__(self, counts: Iterable[int] = (0,) * (len(BOUNDS) + 1), total: float = 0.0) -> None:
        self.counts = list(counts)
        self.total = total

    def add(self, seconds: float) -> None:
        """Count one. Clocks of two machines differ: what seems to come before it was sent took no time."""
        seconds = max(0.0, seconds)
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def take_in(self, other: Delays) -> None:
        """Add what another has counted."""
        for bucket, count in enumerate(other.counts):
            self.counts[bucket] += count
        self.total += other.total
