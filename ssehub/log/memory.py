"""MemoryLog: the log of a single process, bounded by number and age."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from ssehub.exceptions import LogError
from ssehub.log.base import Gap, Log, Page
from ssehub.log.packet import Entry, Packet, Receipt
from ssehub.log.position import GENESIS, Position, new_nonce


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
        self._size = size
        self._ttl = ttl
        self._lock = threading.Lock()
        self._deliver: Callable[[Entry], int] | None = None
        # By offset, so that a read costs what it returns; the offsets held are always contiguous and end at the tail.
        self._entries: dict[int, Entry] = {}
        self._times: dict[int, float] = {}
        self._chosen_ids: dict[str, int] = {}
        self._tail = Position(_new_epoch(), 0, GENESIS)

    def start(self, deliver: Callable[[Entry], int]) -> None:
        """Begin to deliver; see :meth:`Log.start`. A log that is still empty takes a new epoch.

        :raises LogError: if another hub uses this log.
        """
        self._lock = threading.Lock()
        if self._deliver is not None and self._deliver != deliver:
            raise LogError("this log belongs to another hub already; give each hub a log of its own")
        self._deliver = deliver
        if not self._tail.offset:
            # Four workers forked from one parent are four logs.
            self._tail = self._tail._replace(epoch=_new_epoch())

    def append(self, packet: Packet) -> Receipt:
        """Add a packet and deliver it before returning; see :meth:`Log.append`."""
        body = packet.encode()
        with self._lock:
            if self._deliver is None:
                raise LogError("the log is not started, or closed")
            tail = self._tail
            entry = Entry(packet, Position(tail.epoch, tail.offset + 1, new_nonce()), tail.nonce, body)
            self._keep(entry)
            return Receipt(entry.id, self._deliver(entry))

    def read(self, after: Position, limit: int) -> Page:
        """Read on from a position; see :meth:`Log.read`."""
        with self._lock:
            self._expire()
            gap = self._judge(after)
            if gap:
                return Page((), False, gap)
            end = min(after.offset + limit, self._tail.offset)
            entries = [self._entries[offset] for offset in range(after.offset + 1, end + 1)]
            return Page(entries, end == self._tail.offset)

    def locate(self, last_event_id: str) -> Position | Gap:
        """Find the place an id names; see :meth:`Log.locate`. An id chosen twice means its newest entry."""
        with self._lock:
            offset = self._chosen_ids.get(last_event_id)
            if offset is not None:
                return self._entries[offset].position
            return Position.parse(last_event_id) or Gap("bad_id", None, self._tail)

    def tail(self) -> Position:
        """Return the place of the newest entry."""
        with self._lock:
            return self._tail

    def oldest(self) -> Position:
        """Return the place before the oldest entry that is held."""
        with self._lock:
            self._expire()
            return self._before_first()

    def close(self) -> None:
        """Accept no more packets; reading still works, and :meth:`start` opens the log again."""
        with self._lock:
            self._deliver = None

    # What follows runs under the lock.

    def _first(self) -> int:
        return self._tail.offset - len(self._entries) + 1

    def _before_first(self) -> Position:
        oldest = self._entries.get(self._first())
        if oldest is None:
            return self._tail
        return Position(self._tail.epoch, oldest.position.offset - 1, oldest.previous)

    def _judge(self, after: Position) -> Gap | None:
        """Say what is missing between a position and the first entry that a read from it would give."""
        start = self._before_first()
        if after.epoch != self._tail.epoch:
            # Nothing of this epoch can have been seen: all that is held is new to the reader.
            return Gap("epoch", None, start)
        if after.offset > self._tail.offset:
            return Gap("ahead", None, self._tail)
        if after.offset < start.offset:
            return Gap("trimmed", start.offset - after.offset, start)
        here = self._entries[after.offset].position if after.offset > start.offset else start
        # Another entry stands where the reader's did. Which of the others it has seen nobody can know.
        return Gap("fork", None, self._tail) if here.nonce != after.nonce else None

    def _keep(self, entry: Entry) -> None:
        self._tail = entry.position
        self._entries[entry.position.offset] = entry
        if self._ttl is not None:
            self._times[entry.position.offset] = time.monotonic()
        if entry.packet.message.id:
            self._chosen_ids[entry.id] = entry.position.offset
        if len(self._entries) > self._size:
            self._let_go(self._first())
        self._expire()

    def _expire(self) -> None:
        if self._ttl is None:
            return
        limit = time.monotonic() - self._ttl
        first = self._first()
        while first in self._times and self._times[first] < limit:
            self._let_go(first)
            first += 1

    def _let_go(self, offset: int) -> None:
        entry = self._entries.pop(offset)
        self._times.pop(offset, None)
        if self._chosen_ids.get(entry.id) == offset:
            del self._chosen_ids[entry.id]


def _new_epoch() -> int:
    # The clock alone would give workers that start in the same millisecond the same epoch.
    return (time.time_ns() // 1_000_000 << 16) | secrets.randbits(16)
