"""Ring: the newest entries of a log, in memory."""

from __future__ import annotations

import threading
import time

from ssehub.log.base import Gap, Page
from ssehub.log.packet import Entry
from ssehub.log.position import Place, Position


class Ring:
    """Hold the newest entries of one epoch, contiguous and ending at the tail, and judge places by them.

    Safe to use from any thread. Only writers take the lock: a thousand readers would queue up at it, and the writer
    behind them. An entry is there before the tail moves to it, and the first offset moves before its entry goes.

    :param size: entries held at the most.
    :param ttl: seconds an entry is held; None for no limit of age.
    :param tail: the place after which the first entry comes.
    """

    def __init__(self, size: int, ttl: float | None, tail: Position) -> None:
        self.tail = tail
        self._size = size
        self._ttl = ttl
        self._lock = threading.Lock()
        # By offset, so that a read costs what it returns.
        self._entries: dict[int, Entry] = {}
        self._first = tail.offset + 1
        self._times: dict[int, float] = {}
        self._chosen_ids: dict[str, int] = {}

    def renew_lock(self) -> None:
        """Make the lock anew in a forked child: the parent's may have been held."""
        self._lock = threading.Lock()

    def keep(self, entry: Entry) -> None:
        """Add the entry that comes after the tail, and let go of the oldest if there are too many."""
        offset = entry.position.offset
        with self._lock:
            self._entries[offset] = entry
            if self._ttl is not None:
                self._times[offset] = time.monotonic()
            if entry.packet.message.id:
                self._chosen_ids[entry.id] = offset
            self.tail = entry.position
            if len(self._entries) > self._size:
                self._let_go()
            self._let_go_of_old()

    def clear(self) -> None:
        """Let go of every entry; the tail stays where it is."""
        with self._lock:
            while self._entries:
                self._let_go()

    def read(self, after: Place, limit: int) -> Page:
        """Read on from a place; see :meth:`Log.read`. Of a place in several lanes the first is read."""
        after = after.parts[0]
        self._expire()
        while True:
            try:
                return self._read(after, limit)
            except KeyError:  # let go of in this very moment
                continue

    def holds(self, place: Position) -> bool:
        """Tell whether a place is one of this log's: one that is held, or has been let go of."""
        page = self.read(place, 0)
        return page.gap is None or page.gap.reason == "trimmed"

    def find(self, chosen_id: str) -> Position | None:
        """Find the place of the entry whose id a publisher chose; of the newest, if it was chosen twice."""
        with self._lock:
            offset = self._chosen_ids.get(chosen_id)
            return None if offset is None else self._entries[offset].position

    def oldest(self) -> Position:
        """Return the place before the oldest entry that is held."""
        self._expire()
        while True:
            try:
                return self._before_first(self.tail)
            except KeyError:
                continue

    def _read(self, after: Position, limit: int) -> Page:
        tail = self.tail
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
        return Position(tail.epoch, first - 1, self._entries[first].previous, tail.lane)

    def _judge(self, after: Position, tail: Position) -> Gap | None:
        """Say what is missing between a position and the first entry that a read from it would give."""
        start = self._before_first(tail)
        if after.epoch < tail.epoch:
            # Nothing of a younger log can have been seen: all that is held is new to the reader.
            return Gap("epoch", None, start)
        if after.epoch > tail.epoch:
            # An older log has come back. Which of it the reader has seen nobody can know.
            return Gap("epoch", None, tail)
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
