"""Trimming: drops the oldest entries of a log in a SQL database, many at a time.

If no zones are protected, the oldest rows are deleted. If zones are protected, an entry is dropped in two steps. First
its message is deleted, but the row stays, so that a process that starts knows what was dropped, and for whom. The row
is deleted much later.
"""

from __future__ import annotations

import math
import time

from ssehub.log.sql.store import Statement, Store

#: The minimum number of the newest rows that stay after their messages were dropped.
_REMEMBERED = 10_000
#: The maximum number of entries that are appended between two trims.
_BATCH = 1000
#: With a ``ttl``, entries are also dropped if a log is quiet: after this part of it, and this many seconds at least.
_PART, _SHORTEST = 0.1, 0.5


class Trimming:
    """Drops the oldest entries. Safe to use from any thread.

    :param store: the table.
    :param size: the number of entries to keep.
    :param zone_size: the newest entries of each channel that are protected; None for no protection.
    :param ttl: seconds that an entry is kept; None for no limit.
    """

    def __init__(self, store: Store, size: int, zone_size: int | None, ttl: float | None) -> None:
        self._store = store
        self._size = size
        self._zone_size = zone_size
        self._ttl = ttl
        self._batch = max(1, min(_BATCH, size // 10))
        self._trimmed_at = 0
        #: When old entries have to be dropped, however few were appended (``time.monotonic()``).
        self._next = math.inf if ttl is None else 0.0

    def is_due(self, end: int) -> bool:
        """Return whether a batch of entries was appended, or entries may be too old, since the last True.

        :param end: the offset of the newest entry.
        """
        now = time.monotonic()
        if end // self._batch == self._trimmed_at and now < self._next:
            return False
        self._trimmed_at = end // self._batch
        if self._ttl is not None:
            self._next = now + max(_SHORTEST, _PART * self._ttl)
        return True

    def trim(self, end: int) -> None:
        """Drop the entries that are too many, or too old. It does nothing if another process has just done this.

        :param end: the offset of the newest entry.
        """
        entries = f"{self._store.prefix}_entries"
        statements: list[Statement] = []
        if self._zone_size is None:
            statements.append((f"DELETE FROM {entries} WHERE number <= ?", [(end - self._size,)]))
        else:
            statements += self._drop(entries, end, self._zone_size)
        if self._ttl is not None:
            statements.append(
                (
                    f"DELETE FROM {entries} WHERE number <="
                    f" (SELECT max(number) FROM {entries} WHERE sent < {self._store.now} - ?)"
                    f" AND number < (SELECT max(number) FROM {entries})",  # the newest row may be the end of the log
                    [(self._ttl,)],
                )
            )
        self._store.execute(statements)

    def _drop(self, entries: str, end: int, zone_size: int) -> list[Statement]:
        """Return the statements that drop the messages of the oldest unprotected entries, then of the oldest ones."""
        held = f"FROM {entries} WHERE body IS NOT NULL"
        drop = f"UPDATE {entries} SET body = NULL, extra = NULL, once = NULL WHERE body IS NOT NULL AND number"
        ranked = f"SELECT number, row_number() OVER (PARTITION BY zone, client_id ORDER BY number DESC) AS newer {held}"
        excess = f"SELECT CASE WHEN count(*) > ? THEN count(*) - ? ELSE 0 END {held}"
        return [
            (
                f"{drop} IN (SELECT number FROM ({ranked}) AS ranked WHERE newer > ? ORDER BY number LIMIT ({excess}))",
                [(zone_size, self._size, self._size)],
            ),
            (f"{drop} <= (SELECT number {held} ORDER BY number DESC LIMIT 1 OFFSET ?)", [(self._size,)]),
            (
                f"DELETE FROM {entries} WHERE body IS NULL AND number <= ?",
                [(end - max(_REMEMBERED, 4 * self._size),)],
            ),
        ]
