"""Counters: what a hub has done so far, and what is going on in it."""

from __future__ import annotations

import threading
from typing import Any

from ssehub.server.connection import Connection
from ssehub.server.delays import BOUNDS, Delays

#: Counted by each reader for itself, without a lock, and added up when somebody asks.
_OWN = ("delivered", "gaps")
_ENDS = {"hang-up": "hang_ups", "stalled": "stalled"}


class Counters:
    """Count. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Those that count for themselves. One is in here, or in the totals: never in both, or in neither.
        self._live: set[Connection] = set()
        self._totals = dict.fromkeys(("messages", "opened", "refused", "hang_ups", "stalled", "sent_bytes", *_OWN), 0)
        self._delays = Delays()

    def count(self, name: str) -> None:
        """Add one."""
        with self._lock:
            self._totals[name] += 1

    def enter(self, connection: Connection) -> None:
        """Count a connection that was opened, and from now on what it counts for itself."""
        with self._lock:
            self._totals["opened"] += 1
            self._live.add(connection)

    def take_over(self, connection: Connection) -> None:
        """Add what a connection that has ended counted for itself, and how it ended."""
        with self._lock:
            self._live.discard(connection)
            _add(self._totals, connection)
            self._delays.take_in(connection.delays)
            if connection.closed in _ENDS:
                self._totals[_ENDS[connection.closed]] += 1

    def read(self) -> dict[str, Any]:
        """Return all counters, which never go backwards, and how far behind connections are."""
        delays = Delays()
        with self._lock:
            totals = dict(self._totals)
            delays.take_in(self._delays)
            connections = list(self._live)
            for connection in connections:
                _add(totals, connection)
                delays.take_in(connection.delays)
        lags = [connection.lag for connection in connections]
        now = {
            "behind": sum(lag > 0 for lag in lags),
            "lag": max(lags, default=0),
            "pending": sum(connection.reader.private for connection in connections),
        }
        spread = {"bounds": BOUNDS, "counts": delays.counts, "sum": delays.total}
        return {**now, **totals, "delays": spread}


def _add(totals: dict[str, int], connection: Connection) -> None:
    totals["sent_bytes"] += connection.sent_bytes
    for name in _OWN:
        totals[name] += getattr(connection.reader, name)
