"""Histogram: how long things took, in a memory that does not grow with their number."""

from __future__ import annotations

import math

#: Each bucket reaches one percent further than the one before: ranks are exact to that.
_STEP = math.log(1.01)
_LEAST = 1e-6


class Histogram:
    """Count durations in seconds. For one thread."""

    __slots__ = ("_buckets", "count", "longest")

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count one."""
        bucket = math.floor(math.log(max(seconds, _LEAST)) / _STEP)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1
        self.longest = max(self.longest, seconds)

    def rank(self, share: float) -> float:
        """Return the seconds that this share of all stayed within; 0 of none.

        :param share: 0.5 for the median; 1 for the longest, which is exact.
        """
        wanted = share * self.count
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted < 0:
                return min(math.exp((bucket + 0.5) * _STEP), self.longest)
        return self.longest

    def ranks(self) -> dict[str, float]:
        """Return the usual ranks by name; nothing if nothing was counted."""
        if not self.count:
            return {}
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
        return {name: self.rank(share) for name, share in shares.items()}
