"""SQLiteStore: the tables of a log in a SQLite file; see :class:`~ssehub.log.sql.store.Store`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ssehub.exceptions import LogError
from ssehub.log.position import GENESIS, Position
from ssehub.log.sql.row import Found, Letter, Row
from ssehub.log.sql.store import Statement, Store
from ssehub.log.sql.within import run_within
from ssehub.log.sqlite.file import File, patiently
from ssehub.log.sqlite.tables import VERSION, Statements
from ssehub.log.sqlite.wakes import Wakes

#: The maximum number of rows that are read at a time.
_PAGE = 1000
#: The maximum number of seconds between two looks of a follower, to find entries without a wake: other programs send
#: none, and a transaction sends it before its commit.
_LOOK = 0.05
#: The same, if the follower cannot be woken.
_LOOK_WITHOUT_WAKES = 0.01
#: The wait after a wake for which there was nothing to read yet, in seconds. It doubles each time.
_LOOK_AGAIN = 0.001


class SQLiteStore(Store):
    """The tables of a log in a SQLite file.

    :param path: the file.
    :param prefix: the beginning of the names of the tables.
    :param timeout: the maximum number of seconds to wait for other writers.
    """

    name = "SQLite"
    errors = (sqlite3.Error,)
    now = "((julianday('now') - 2440587.5) * 86400.0)"

    def __init__(self, path: str, prefix: str, timeout: float) -> None:
        self.prefix = prefix
        self._path = path
        self._statements = Statements(prefix)
        #: One connection for all threads, and one for the follower.
        self._file = File(path, self._set_up, timeout)
        self._followed = File(path, self._set_up, timeout)
        self._wakes = Wakes(f"{path}-followers")
        #: SQLite's number for the state of the file, and how often the file had been opened, when it was last read.
        self._seen: tuple[int, int] | None = None
        self._pause = _LOOK

    def append(self, letter: Letter, deadline: float) -> tuple[Position, str]:
        """Append an entry; see :meth:`Store.append`."""
        with self._file.writing(deadline) as connection:
            epoch, number, previous = connection.execute(self._statements.head).fetchone()
            connection.execute(self._statements.insert, (number + 1, previous, *letter))
            connection.execute(self._statements.move, (number + 1, letter.nonce))
        return Position(epoch, number + 1, letter.nonce), previous

    def append_within(self, letter: Letter, connection: Any) -> None:
        """Append an entry in the caller's transaction; see :meth:`Store.append_within`."""
        run_within(
            connection,
            "sqlite",
            ((self._statements.insert_next, letter), (self._statements.move_next, (letter.nonce,))),
            f"the tables of the log {self.prefix!r} are in {self._path}",
        )

    def end(self) -> Position:
        """Return the end of the log."""
        with self._file.reading() as connection:
            return Position(*connection.execute(self._statements.head).fetchone())

    def read(self, after: int | None) -> Found | None:
        """Read the rows after a number; see :meth:`Store.read`."""
        with self._followed.reading() as connection:
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            seen = version, self._followed.openings
            if seen == self._seen and after is not None:
                return None
            connection.execute("BEGIN")
            end = Position(*connection.execute(self._statements.head).fetchone())
            limits = (-1, -1) if after is None else (after, _PAGE)
            rows = [Row(*row) for row in connection.execute(self._statements.read, limits)]
            connection.execute("COMMIT")
        self._seen = None if after is not None and len(rows) == _PAGE else seen
        return Found(end, rows)

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT statement."""
        with self._file.reading() as connection:
            return connection.execute(statement, tuple(parameters)).fetchall()

    def execute(self, statements: Iterable[Statement]) -> list[int]:
        """Execute statements in one transaction; see :meth:`Store.execute`."""
        with self._file.writing() as connection:
            return [connection.executemany(statement, rows).rowcount if rows else 0 for statement, rows in statements]

    def wake(self, own: bool) -> None:
        """Wake the followers of other processes; see :meth:`Store.wake`."""
        self._wakes.send(own)

    def wait(self, idle: bool) -> None:
        """Wait until the follower is woken, or has to look by itself; see :meth:`Store.wait`."""
        self._wakes.listen()
        if not idle:
            self._pause = _LOOK
        if self._wakes.wait(self._pause, _LOOK_WITHOUT_WAKES):
            self._pause = _LOOK_AGAIN
        else:
            self._pause = min(_LOOK, 2 * self._pause)

    def interrupt(self) -> None:
        """End the follower's wait."""
        self._wakes.interrupt()

    def close(self) -> None:
        """Close the connections."""
        self._wakes.close()
        self._file.close()
        self._followed.close()

    def _set_up(self, connection: sqlite3.Connection, deadline: float) -> None:
        """Create the tables of the log, unless they exist.

        :raises LogError: if they were created by another version.
        """
        try:
            found = connection.execute(self._statements.version).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error) and "no such column" not in str(error):
                raise
            found = None
        if found is None:
            patiently(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
            for statement in self._statements.create:
                connection.execute(statement)
            connection.execute(self._statements.begin, (time.time_ns(), GENESIS))
            found = connection.execute(self._statements.version).fetchone()
            connection.execute("COMMIT")
        if found != (VERSION,):
            raise LogError(f"the log {self.prefix!r} in {self._path} was created by another version of ssehub: {found}")
