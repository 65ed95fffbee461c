"""MemoryLog: the log of a single process, bounded by number and age."""

from __future__ import annotations

import os
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
        self._process = 0
        # By offset, so that a read costs what it returns; the offsets held are contiguous and end at the tail. Only
        # writers take the lock: a thousand readers would queue up at it, and the writer behind them. An entry is there
        # before the tail moves to it, and the first offset moves before its entry goes.
        self._entries: dict[int, Entry] = {}
        self._first = 1
        self._times: dict[int, float] = {}
        self._chosen_ids: dict[str, int] = {}
        self._tail = self._delivered = Position(_new_epoch(), 0, GENESIS)

    def start(self, deliver: Callable[[Entry], int]) -> None:
        """Begin to deliver; see :meth:`Log.start`. A log that is still empty takes a new epoch.

        :raises LogError: if a hub of this process uses this log.
        """
        if self._deliver is not None and self._process == os.getpid():
            raise LogError("this log belongs to another hub already; give each hub a log of its own")
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._deliver = deliver
        if not self._tail.offset:
            # Four workers forked from one parent are four logs.
            self._tail = self._delivered = self._tail._replace(epoch=_new_epoch())

    def append(self, packet: Packet) -> Receipt:
        """Add a packet and deliver it before returning; see :meth:`Log.append`."""
        body = packet.encode()
        with self._lock:
            if self._deliver is None:
                raise LogError("the log is not started, or closed")
            tail = self._tail
            entry = Entry(packet, Position(tail.epoch, tail.offset + 1, new_nonce()), tail.nonce, body)
            self._keep(entry)
            queued = self._deliver(entry)
            self._delivered = entry.position
            return Receipt(entry.id, queued)

    def read(self, after: Position, limit: int) -> Page:
        """Read on from a position; see :meth:`Log.read`."""
        self._expire()
        while True:
            try:
                return self._read(after, limit)
            except KeyError:  # let go of in this very moment
                continue

    def locate(self, last_event_id: str) -> Position | Gap:
        """Find the place an id names; see :meth:`Log.locate`. An id chosen twice means its newest entry."""
        with self._lock:
            offset = self._chosen_ids.get(last_event_id)
            if offset is not None:
                return self._entries[offset].position
            return Position.parse(last_event_id) or Gap("bad_id", None, self._tail)

    def tail(self) -> Position:
        """Return the place of the newest entry that was delivered."""
        return self._delivered

    def oldest(self) -> Position:
        """Return the place before the oldest entry that is held."""
        self._expire()
        while True:
            try:
                return self._before_first(self._tail)
            except KeyError:
                continue

    def close(self) -> None:
        """Accept no more packets; reading still works, and :meth:`start` opens the log again."""
        with self._lock:
            self._deliver = None

    def _read(self, after: Position, limit: int) -> Page:
        tail = self._tail
        gap = self._judge(after, tail)
        if gap:
            return Page((), False, gap)
        end = min(after.offset + limit, tail.offset)
        entries = [self._entries[offset] for offset in range(after.offset + 1, end + 1)]
        return Page(entries, end == tail.offset)

    def _before_first(self, tail: Position) -> Position:
        first = self._first
        if first > tail.offset:
            return tail
        return Position(tail.epoch, first - 1, self._entries[first].previous)

    def _judge(self, after: Position, tail: Position) -> Gap | None:
        """Say what is missing between a position and the first entry that a read from it would give."""
        start = self._before_first(tail)
        if after.epoch != tail.epoch:
            # Nothing of this epoch can have been seen: all that is held is new to the reader.
            return Gap("epoch", None, start)
        if after.offset > tail.offset:
            return Gap("ahead", None, tail)
        if after.offset < start.offset:
            return Gap("trimmed", start.offset - after.offset, start)
        here = self._entries[after.offset].position if after.offset > start.offset else start
        # Another entry stands where the reader's did. Which of the others it has seen nobody can know.
        return Gap("fork", None, tail) if here.nonce != after.nonce else None

    def _expire(self) -> None:
        if self._ttl is not None and self._times:
            with self._lock:
                self._let_go_of_old()

    # What follows runs under the lock.

    def _keep(self, entry: Entry) -> None:
        offset = entry.position.offset
        self._entries[offset] = entry
        if self._ttl is not None:
            self._times[offset] = time.monotonic()
        if entry.packet.message.id:
            self._chosen_ids[entry.id] = offset
        self._tail = entry.position
        if len(self._entries) > self._size:
            self._let_go()
        self._let_go_of_old()

    def _let_go_of_old(self) -> None:
        if self._ttl is not None:
            limit = time.monotonic() - self._ttl
            while self._first in self._times and self._times[self._first] < limit:
                self._let_go()

    def _let_go(self) -> None:
        offset = self._first
        self._first = offset + 1
        entry = self._entries.pop(offset)
        self._times.pop(offset, None)
        if self._chosen_ids.get(entry.id) == offset:
            del self._chosen_ids[entry.id]


def _new_epoch() -> int:
    # The clock alone would give workers that start in the same millisecond the same epoch.
    return (time.time_ns() // 1_000_000 << 16) | secrets.randbits(16)
