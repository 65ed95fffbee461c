"""MemoryLog: the log of a single process, bounded by number and age."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence

from ssehub.exceptions import LogError
from ssehub.log.base import Gap, Log, Page
from ssehub.log.packet import Entry, Order, Packet, Receipt
from ssehub.log.position import GENESIS, Place, Position, new_nonce
from ssehub.log.ring import Ring


class MemoryLog(Log):
    """Keep the newest entries in memory.

    Each process has a log of its own, and each start of a process begins a new epoch: a client that comes back after
    a restart is told of the gap.

    :param size: entries kept at the most.
    :param ttl: seconds an entry is kept; None for no limit of age.
    :raises ValueError: if a bound is not positive.
    """

    def __init__(self, size: int = 10_000, ttl: float | None = None) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        if ttl is not None and not ttl > 0:
            raise ValueError(f"ttl must be a positive number of seconds, not {ttl}")
        self._bounds = size, ttl
        self._deliver: Callable[[Entry], int] | None = None
        self._process = 0
        self._renew()

    def _renew(self) -> None:
        """Begin a new epoch. The order of entries is that of the lock."""
        self._lock = threading.Lock()
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._ring = Ring(*self._bounds, Position(_new_epoch(), 0, GENESIS))
        self._delivered = self._ring.tail

    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Order]], None]) -> None:
        """Begin to deliver; see :meth:`Log.start`. A log that is still empty takes a new epoch.

        :raises LogError: if a hub of this process uses this log.
        """
        if self._deliver is not None and self._process == os.getpid():
            raise LogError("this log belongs to another hub already; give each hub a log of its own")
        if not self._ring.tail.offset:
            # Four workers forked from one parent are four logs.
            self._renew()
        elif self._process != os.getpid():
            self._lock = threading.Lock()
            self._ring.renew_lock()
        self._process = os.getpid()
        self._deliver = deliver

    def append(self, packet: Packet) -> Receipt:
        """Add a packet and deliver it before returning; see :meth:`Log.append`."""
        body, now = packet.encode(), time.time()
        with self._lock:
            if self._deliver is None:
                raise LogError("the log is not started, or closed")
            tail = self._ring.tail
            entry = Entry(packet, Position(tail.epoch, tail.offset + 1, new_nonce()), tail.nonce, body, now)
            self._ring.keep(entry)
            queued = self._deliver(entry)
            self._delivered = entry.position
            return Receipt(entry.id, queued)

    def read(self, after: Place, limit: int) -> Page:
        """Read on from a position; see :meth:`Log.read`."""
        return self._ring.read(after, limit)

    def locate(self, last_event_id: str) -> Position | Gap:
        """Find the place an id names; see :meth:`Log.locate`. An id chosen twice means its newest entry."""
        place = self._ring.find(last_event_id) or Position.parse(last_event_id)
        return place or Gap("bad_id", None, self._ring.tail)

    def tail(self) -> Position:
        """Return the place of the newest entry that was delivered."""
        return self._delivered

    def oldest(self) -> Position:
        """Return the place before the oldest entry that is held."""
        return self._ring.oldest()

    def close(self) -> None:
        """Accept no more packets; reading still works, and :meth:`start` opens the log again."""
        with self._lock:
            self._deliver = None


def _new_epoch() -> int:
    # The clock alone might give workers that start together the same epoch.
    return time.time_ns() & ~0xFF | secrets.randbits(8)
