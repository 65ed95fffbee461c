"""Counters: how many messages and bytes a hub has sent, how streams ended, and how long messages took."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from typing import Any

#: The upper bounds of the delay buckets, in seconds; one more bucket has no bound. Precedent: the default buckets of
#: Prometheus' clients. Smaller ones are added, because most messages take about a millisecond.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_TOTALS = ("messages", "opened", "refused", "hang_ups", "stalled", "sent_bytes", "delivered", "gaps")
_ENDS = {"hang-up": "hang_ups", "stalled": "stalled"}


class Counters:
    """The counters of a hub in one process. Safe to use from any thread. Totals never decrease."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = dict.fromkeys(_TOTALS, 0)
        #: The reasons why streams were not taken over from the server.
        self._not_taken: Counter[str] = Counter()
        self._delays = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def count(self, name: str, number: int = 1) -> None:
        """Add a number to a total."""
        with self._lock:
            self._totals[name] += number

    def wrote(self, streams: int, messages: int, size: int, delay: float | None) -> None:
        """Count that the same messages were written to some streams.

        :param messages: the number of messages in each write.
        :param size: the number of bytes in each write.
        :param delay: seconds since the oldest of the messages was sent; None if the clients were not connected then.
            The clocks of two machines may differ, so a negative delay counts as 0.
        """
        with self._lock:
            self._totals["delivered"] += messages * streams
            self._totals["sent_bytes"] += size * streams
            if delay is not None:
                delay = max(0.0, delay)
                self._delays[bisect_left(BOUNDS, delay)] += streams
                self._seconds += delay * streams

    def ended(self, reason: str | None) -> None:
        """Count how a stream ended, if there is a counter for this reason."""
        if reason in _ENDS:
            self.count(_ENDS[reason])

    def not_taken(self, reason: str) -> bool:
        """Count a stream that could not be taken over. Return whether it is the first with this reason."""
        with self._lock:
            self._not_taken[reason] += 1
            return self._not_taken[reason] == 1

    def read(self) -> dict[str, Any]:
        """Return all counters."""
        with self._lock:
            delays = {"bounds": BOUNDS, "counts": list(self._delays), "sum": self._seconds}
            return {**self._totals, "not_taken": dict(self._not_taken), "delays": delays}
