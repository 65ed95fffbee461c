"""SQLReplica: the newest entries of a log in a SQL database, in the memory of this process.

Two kinds of threads add entries. The follower reads rows from the table. A thread that has appended an entry adds it
itself if it is the next one, so that no other thread has to wake. Both add under one lock, and the follower skips
entries that were added already. No lock is held while the table is read. While the whole table is read again, only the
follower adds entries: otherwise an entry could be added to the old history and be delivered a second time.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from ssehub.log.history import History
from ssehub.log.packet import Command, Entry
from ssehub.log.position import Position
from ssehub.log.replica import Broken, Replica
from ssehub.log.route import follows, unreadable
from ssehub.log.sql.row import Row
from ssehub.log.sql.store import Store


class SQLReplica(Replica):
    """The newest entries of a log in a SQL database.

    :param store: the table.
    :param size: the maximum number of entries to hold.
    :param zone_size: the newest entries of each channel that are protected from being dropped; None for no protection.
    :param ttl: seconds that an entry is held; None for no limit.
    :param timeout: the maximum number of seconds that readers wait until this process has read all entries.
    """

    def __init__(self, store: Store, size: int, zone_size: int | None, ttl: float | None, timeout: float) -> None:
        super().__init__(0, timeout, store.errors)
        self._store = store
        self._bounds = size, zone_size, ttl
        self._adding = threading.Lock()
        #: Whether the history continues the log, as far as is known.
        self._is_sound = True

    def open(self, began: Callable[[Position], None]) -> None:
        """Read the table, unless that was done. Only one thread at a time may call this.

        :param began: called with the end of the log, before other threads can use the replica.
        """
        if not self.is_open:
            self.open_with(self._fetch(), began)

    def fetch_end(self) -> Position:
        """Return the end of the log in the table."""
        return self._store.end()

    def add_own(self, entry: Entry, deliver: Callable[[Entry], int]) -> int | None:
        """Add an entry that this process has appended, and deliver it, if it is the next one.

        :returns: the number of its connections. None if the follower has to read it, or has read it.
        """
        with self._adding:
            if not (self._is_sound and follows(entry.position, entry.previous, self.history.end)):
                return None
            self._is_sound = False  # a signal handler may raise an exception before the entry is delivered
            queued = self.add(entry, deliver)
            self._is_sound = True
            return queued

    def look(self, deliver: Callable[[Entry], int], broken: Callable[[Position, list[Command]], None]) -> bool:
        """Read new rows, and deliver them. Only the follower may call this.

        :returns: whether there were new rows.
        """
        with self._adding:  # while a thread adds its entry, the history is not sound
            is_sound = self._is_sound
        if not is_sound:
            self._begin_anew(broken)
            return True
        before = self.history.end
        found = self._store.read(before.offset)
        if found is None:
            return False
        try:
            if found.end.epoch != before.epoch or (not found.rows and found.end != before):
                raise Broken
            self._take(found.rows, before, deliver)
        except Broken:
            self._begin_anew(broken)
        return bool(found.rows)

    def _take(self, rows: Sequence[Row], before: Position, deliver: Callable[[Entry], int]) -> None:
        if rows and not follows(rows[0].position(before.epoch), rows[0].previous, before):
            raise Broken
        for row in rows:
            entry = self._entry(row, before.epoch)
            with self._adding:
                if row.number <= self.history.end.offset:  # the thread that appended the entry has added it
                    continue
                if not follows(entry.position, entry.previous, self.history.end):
                    raise Broken
                if row.body is None:
                    self.history.keep_dropped(entry)
                    self._delivered = entry.position
                else:
                    self.add(entry, deliver)

    def _begin_anew(self, broken: Callable[[Position, list[Command]], None]) -> None:
        with self._adding:
            self._is_sound = False
        history = self._fetch()
        with self._adding:
            self.replace(history, broken)
            self._is_sound = True

    def _fetch(self) -> History:
        """Read the whole table. Return the newest entries, as far back as each follows the one before.

        If zones are protected, also return older entries: newer ones of other zones were deleted.
        """
        size, zone_size, ttl = self._bounds
        found = self._store.read(None)
        assert found is not None
        rows, end = found.rows, found.end
        first = len(rows) if not rows or rows[-1].position(end.epoch) != end else 0
        for n, (one, after) in enumerate(itertools.pairwise(rows), 1):
            if (after.number, after.previous) != (one.number + 1, one.nonce):
                first = max(first, n)
        begin = end if first == len(rows) else Position(end.epoch, rows[first].number - 1, rows[first].previous)
        history = History(size, ttl, begin, zone_size, can_fork=True)
        now = time.time()
        if zone_size is not None and first < len(rows):
            for row in rows[:first]:
                if row.body is not None:
                    entry = self._entry(row, end.epoch)
                    history.restore(entry, max(0.0, now - entry.sent))
        for row in rows[first:]:
            entry = self._entry(row, end.epoch)
            if row.body is None:
                history.keep_dropped(entry)
            else:
                history.keep(entry, max(0.0, now - entry.sent))
        return history

    def _entry(self, row: Row, epoch: int) -> Entry:
        """Decode an entry. If another program wrote it wrongly, return a command that does nothing instead."""
        try:
            return row.entry(epoch)
        except Exception:
            position = row.position(epoch)
            self.count_unreadable(f"entry {position} in {self._store.name}")
            return unreadable(position, row.previous)
