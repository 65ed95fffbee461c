"""Histogram: a distribution of durations, in constant memory."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable
from itertools import repeat

#: Ratio of the limits of neighbouring buckets, and so the precision of the ranks: one percent.
_STEP = 1.01
_LEAST = 1e-6
#: Number of durations that can be sorted into buckets within a millisecond.
_AT_ONCE = 4096


class Histogram:
    """A distribution of durations in seconds. Not thread-safe."""

    __slots__ = ("_buckets", "_new", "_sorted", "longest")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._new = array("d")
        self._sorted = 0
        self.longest: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.extend((seconds,))

    def extend(self, durations: Iterable[float]) -> None:
        """Count several."""
        self._new.extend(durations)
        if len(self._new) >= _AT_ONCE:
            self._sort()

    @property
    def count(self) -> int:
        """The number of durations."""
        return self._sorted + len(self._new)

    def _sort(self) -> None:
        """Sort the new durations into buckets."""
        if self._new:
            self.longest = max(self.longest, *self._new)
            logarithms = map(math.log, map(max, self._new, repeat(_LEAST)), repeat(_STEP))
            self._buckets.update(map(math.floor, logarithms))
            self._sorted += len(self._new)
            del self._new[:]

    def rank(self, share: float) -> float:
        """Return the duration that this share of all durations does not exceed; 0 without durations.

        :param share: 0.5 for the median; 1 for the maximum, which is exact.
        """
        self._sort()
        wanted = share * self.count
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted < 0:
                return min(math.pow(_STEP, bucket + 0.5), self.longest)
        return self.longest

    def ranks(self) -> dict[str, float]:
        """Return the usual ranks by name; empty if there are no durations."""
        if not self.count:
            return {}
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
        return {name: self.rank(share) for name, share in shares.items()}
