"""SQLiteStore: the tables of a log in a SQLite file; see :class:`~ssehub.log.sql.store.Store`."""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from ssehub.exceptions import LogError
from ssehub.log.position import GENESIS, Position, is_nonce
from ssehub.log.sql.row import Found, Letter, Row
from ssehub.log.sql.store import Statement, Store
from ssehub.log.sql.within import run_within
from ssehub.log.sqlite.file import File
from ssehub.log.sqlite.place import is_same
from ssehub.log.sqlite.tables import MAIN_FILE, VERSION, Statements
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
#: What to do if SQLite does not wait for other writers, whatever the timeout: a transaction that has read cannot begin
#: to write if another one has written since.
_UPGRADE = (
    "begin the transaction with BEGIN IMMEDIATE, so that it waits for others (in Django, set"
    " OPTIONS['transaction_mode'] of the database to 'IMMEDIATE')"
)


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

        def _insert(connection: sqlite3.Connection) -> tuple[Position, str]:
            epoch, number, previous = connection.execute(self._statements.head).fetchone() or self._has_no_head()
            if letter.once is not None:
                first = connection.execute(self._statements.first, (letter.once, number)).fetchone()
                if first is not None:
                    return Position(epoch, *first[:2]), first[2]
            before = connection.total_changes
            connection.execute(self._statements.insert, (number + 1, previous, *letter))
            if connection.total_changes != before + 2:  # the trigger is made again when the file is opened
                raise sqlite3.DatabaseError(f"the trigger {self.prefix}_move is missing")
            return Position(epoch, number + 1, letter.nonce), previous

        return self._file.write(_insert, deadline)

    def append_within(self, letter: Letter, connection: Any) -> None:
        """Append an entry in the caller's transaction; see :meth:`Store.append_within`.

        If there are no tables yet, they are created in the same transaction.
        """
        file = self._run_within(connection, (MAIN_FILE, ())).fetchone()[0]
        if not is_same(file, self._path):
            raise LogError(f"within is a connection to {file or 'a memory database'}, but the log is in {self._path}")
        try:
            self._insert_within(connection, letter)
        except LogError as error:
            if " locked" in str(error.__cause__):
                raise LogError(f"{error.__cause__}: {_UPGRADE}") from error
            if "no such table" not in str(error.__cause__):
                raise
            creation = [(statement, ()) for statement in self._statements.create]
            begin = self._statements.begin, (time.time_ns(), GENESIS)
            self._insert_within(connection, letter, *creation, begin)

    def end(self) -> Position:
        """Return the end of the log."""
        return self._file.read(self._head)

    def read(self, after: int | None) -> Found | None:
        """Read the rows after a number; see :meth:`Store.read`."""
        return self._followed.read(lambda connection: self._read(connection, after))

    def _read(self, connection: sqlite3.Connection, after: int | None) -> Found | None:
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        seen = version, self._followed.openings
        if seen == self._seen and after is not None:
            return None
        connection.execute("BEGIN")
        end = self._head(connection)
        first, limit = (-1, -1) if after is None else (after, _PAGE)
        rows = [_row(row) for row in connection.execute(self._statements.read, (first, end.offset, limit))]
        connection.execute("COMMIT")
        self._seen = None if after is not None and len(rows) == _PAGE else seen
        return Found(end, rows)

    def _head(self, connection: sqlite3.Connection) -> Position:
        return Position(*(connection.execute(self._statements.head).fetchone() or self._has_no_head()))

    def _has_no_head(self) -> NoReturn:
        raise sqlite3.DatabaseError(f"the table {self.prefix}_head is empty")  # it is filled when the file is opened

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT statement."""
        return self._file.read(lambda connection: connection.execute(statement, tuple(parameters)).fetchall())

    def execute(self, statements: Iterable[Statement]) -> list[int]:
        """Execute statements in one transaction; see :meth:`Store.execute`."""
        listed = list(statements)
        return self._file.write(
            lambda connection: [
                connection.executemany(statement, rows).rowcount if rows else 0 for statement, rows in listed
            ]
        )

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
        """End the follower's wait. This process still has to delete its records, and to wait for other writers."""
        self._wakes.interrupt()
        self._followed.interrupt()

    def close(self) -> None:
        """Close the connections. Later calls raise LogError."""
        self._wakes.close()
        self._file.close()
        self._followed.close()

    def migration(self, role: str | None = None) -> str:
        """Return the SQL that creates the tables; see :meth:`Store.migration`."""
        if role is not None:
            raise ValueError("a SQLite file has no users: there is no role")
        begin = f"INSERT OR IGNORE INTO {self.prefix}_head VALUES (1, {VERSION}, {time.time_ns()}, 0, '{GENESIS}')"
        return ";\n".join(("BEGIN IMMEDIATE", *self._statements.create, begin, "COMMIT;\n"))

    def migrate(self, role: str | None = None) -> None:
        """Create the tables, unless they exist."""
        self.migration(role)
        self.end()

    def _insert_within(self, connection: Any, letter: Letter, *first: tuple[str, Sequence[Any]]) -> None:
        insert = self._statements.insert_next, (*letter, letter.once)
        if self._run_within(connection, *first, insert).rowcount:
            return
        # The entry with the key is there, or there is no head.
        if letter.once is None or self._run_within(connection, (self._statements.head, ())).fetchone() is None:
            raise LogError(f"the message was not accepted: the table {self.prefix}_head is empty")

    def _run_within(self, connection: Any, *statements: tuple[str, Sequence[Any]]) -> Any:
        return run_within(connection, "sqlite", statements, f"the log {self.prefix!r} is in {self._path}")

    def _set_up(self, connection: sqlite3.Connection) -> None:
        """Create the tables of the log, unless they exist.

        :raises LogError: if they were created by another version.
        """
        if self._is_complete(connection):
            return
        connection.execute("BEGIN IMMEDIATE")
        if not self._is_complete(connection):
            for statement in self._statements.create:
                connection.execute(statement)
            if connection.execute(self._statements.version).fetchone() is None:
                connection.execute(self._statements.clear)
                connection.execute(self._statements.begin, (time.time_ns(), GENESIS))
        connection.execute("COMMIT")

    def _is_complete(self, connection: sqlite3.Connection) -> bool:
        existing = {name for (name,) in connection.execute(self._statements.existing)}
        if f"{self.prefix}_head" not in existing:
            return False
        try:
            found = connection.execute(self._statements.version).fetchone()
        except sqlite3.OperationalError as error:
            if "no such column" not in str(error):
                raise
            found = ("none",)
        if found not in (None, (VERSION,)):
            raise LogError(f"the log {self.prefix!r} in {self._path} was created by another version of ssehub: {found}")
        return found is not None and self._statements.names <= existing


def _row(values: tuple[Any, ...]) -> Row:
    row = Row(*values)
    if is_nonce(row.nonce) and is_nonce(row.previous):
        return row
    return row._replace(nonce=_as_nonce(row.nonce), previous=_as_nonce(row.previous))


def _as_nonce(value: object) -> str:
    """Return a nonce for what another program wrote instead: the same in every process."""
    return value if is_nonce(value) else f"{zlib.crc32(repr(value).encode()):08x}"
