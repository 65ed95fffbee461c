"""Histogram: how long things took, in a memory that does not grow with their number."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable
from itertools import repeat

#: Each bucket reaches one percent further than the one before: ranks are exact to that.
_STEP = 1.01
_LEAST = 1e-6
#: As many as go into buckets in a millisecond.
_AT_ONCE = 4096


class Histogram:
    """Count durations in seconds. For one thread."""

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
        """How many were counted."""
        return self._sorted + len(self._new)

    def _sort(self) -> None:
        """Put those into buckets that are in none yet."""
        if self._new:
            self.longest = max(self.longest, *self._new)
            logarithms = map(math.log, map(max, self._new, repeat(_LEAST)), repeat(_STEP))
            self._buckets.update(map(math.floor, logarithms))
            self._sorted += len(self._new)
            del self._new[:]

    def rank(self, share: float) -> float:
        """Return the seconds that this share of all stayed within; 0 of none.

        :param share: 0.5 for the median; 1 for the longest, which is exact.
        """
        self._sort()
        wanted = share * self.count
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted < 0:
                return min(math.pow(_STEP, bucket + 0.5), self.longest)
        return self.longest

    def ranks(self) -> dict[str, float]:
        """Return the usual ranks by name; nothing if nothing was counted."""
        if not self.count:
            return {}
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
        return {name: self.rank(share) for name, share in shares.items()}
