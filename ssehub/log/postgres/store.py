"""PostgresStore: the tables of a log in a PostgreSQL database; see :class:`~ssehub.log.sql.store.Store`."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

from ssehub.exceptions import LogError
from ssehub.log.position import Position
from ssehub.log.postgres.connection import Connection, Unanswered
from ssehub.log.postgres.link import ERRORS, Link, reason_of
from ssehub.log.postgres.listener import Listener
from ssehub.log.postgres.migration import creation, lock, migration
from ssehub.log.postgres.shared_connection import SharedConnection
from ssehub.log.postgres.tables import VERSION, Statements, prefix_of
from ssehub.log.postgres.writer import Writer, may_pass
from ssehub.log.sql.row import Found, Letter, Row
from ssehub.log.sql.store import Statement, Store
from ssehub.log.sql.within import run_within

#: The maximum number of rows that are read at a time.
_PAGE = 1000
#: The number of deleted entries after which the follower vacuums the table. A vacuum takes milliseconds, and without
#: it the table grows until the server's autovacuum comes, which may take a minute.
_VACUUM = 20_000
#: The number of attempts of a transaction that conflicts with others.
_ATTEMPTS = 5


class PostgresStore(Store):
    """The tables of a log in a PostgreSQL database.

    :param link: the server.
    :param listen_link: the server, for the connection that follows the log.
    :param name: the name of the log.
    :param schema: the schema of the tables; None for the search path.
    :param timeout: the maximum number of seconds to wait for an answer, and for other threads.
    """

    name = "PostgreSQL"
    errors = ERRORS
    now = "extract(epoch from clock_timestamp())::double precision"

    def __init__(self, link: Link, listen_link: Link, name: str, schema: str | None, timeout: float) -> None:
        self.prefix = prefix_of(name, schema)
        self._name = name
        self._schema = schema
        self._statements = Statements(name, schema)
        #: One connection for all threads, and one for the follower.
        self._shared = SharedConnection(link, self._set_up, timeout)
        self._followed = SharedConnection(listen_link, self._set_up_followed, timeout)
        self._writer = Writer(self._shared, self._statements)
        self._listener = Listener(
            self._statements.channel, self._statements.listen, self._probe, lambda pid: pid == self._shared.pid
        )
        self._is_standby = False
        #: Whether the tables certainly exist.
        self._has_tables = False
        #: The number of entries that were deleted since the last vacuum; None if vacuums take too long.
        self._deleted: int | None = 0
        _stores.add(self)

    @property
    def writable(self) -> bool:
        """Whether the server that is followed accepts writes."""
        return not self._is_standby

    def append(self, letter: Letter, deadline: float) -> tuple[Position, str]:
        """Append an entry; see :meth:`Store.append`."""
        return self._writer.append(letter, deadline)

    def append_within(self, letter: Letter, connection: Any) -> None:
        """Append an entry in the caller's transaction; see :meth:`Store.append_within`.

        If there may be no tables yet, they are created first, on another connection.
        """
        if not self._has_tables:
            try:
                self.end()
            except self.errors as error:
                raise LogError(f"the message was not accepted within the transaction: {error}") from error
            self._has_tables = True
        run_within(
            connection,
            "postgresql",
            ((self._statements.post, letter),),
            f"within has to be a connection to the database of the log, which has the table {self.prefix}_outbox",
        )

    def end(self) -> Position:
        """Return the end of the log."""
        with self._shared.lent() as connection:
            end = Position(*_row(connection.execute(self._statements.end)))
        self._writer.know(end)
        return end

    def read(self, after: int | None) -> Found | None:
        """Read the rows after a number; see :meth:`Store.read`."""
        limits = (-1, None) if after is None else (after, _PAGE)
        with self._followed.lent() as connection:
            found = self._look(connection, limits)
            if found is None:  # the outbox was moved
                found = self._look(connection, limits, move=False)
            self._vacuum(connection)
        assert found is not None
        self._writer.know(found.end)
        return found

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT statement."""
        with self._shared.lent() as connection:
            return connection.execute(statement.replace("?", "%s"), parameters).fetchall()

    def execute(self, statements: Iterable[Statement]) -> list[int]:
        """Execute statements in one transaction; see :meth:`Store.execute`. Conflicts are resolved here."""
        listed = [(statement.replace("?", "%s"), rows) for statement, rows in statements]
        for left in reversed(range(_ATTEMPTS)):
            try:
                with self._shared.lent() as connection, connection.transaction():
                    counts = [_execute(connection, statement, rows) for statement, rows in listed]
                break
            except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                if not left:
                    raise
        if self._deleted is not None:
            entries = f"DELETE FROM {self.prefix}_entries "
            self._deleted += sum(n for n, (text, _) in zip(counts, listed, strict=True) if text.startswith(entries))
        return counts

    def wake(self, own: bool) -> None:
        """Wake the follower of this process; see :meth:`Store.wake`. The others get a notification from the server."""
        if own:
            self._listener.wake()

    def wait(self, idle: bool) -> None:
        """Wait until the follower is woken, or has to look by itself; see :meth:`Store.wait`."""
        openings = self._followed.openings
        with self._followed.lent() as connection:
            if openings == self._followed.openings:  # otherwise look first: notifications may have been lost
                self._listener.wait(connection)

    def interrupt(self) -> None:
        """End the follower's wait."""
        self._listener.wake()
        self._followed.close()

    def close(self) -> None:
        """Close the connections."""
        self._shared.close()
        self._followed.close()
        self._listener.close()

    def leave_sockets(self) -> None:
        """Close the descriptors of the connections, in a forked child. Nothing is sent to the server.

        Otherwise the sessions of a parent that was killed would live on the server as long as the child.
        """
        for connection in (self._shared.connection, self._followed.connection):
            with contextlib.suppress(psycopg.Error, OSError):
                if connection is not None:
                    _replace(connection.pgconn.socket)

    def migration(self, role: str | None = None) -> str:
        """Return the SQL that creates the tables; see :func:`ssehub.log.postgres.migration.migration`."""
        return migration(self._name, self._schema, role)

    def migrate(self, role: str | None = None) -> None:
        """Create the tables, unless they exist."""
        with self._shared.lent() as connection:
            if role is not None:
                connection.execute(self.migration(role))

    def _look(self, connection: Connection, limits: tuple[int, int | None], move: bool = True) -> Found | None:
        """Read the end of the log and rows. If messages wait in the outbox, move them, and return None."""
        rows = connection.execute(self._statements.read, limits).fetchall()
        self._is_standby = rows[0][3]
        if rows[0][4] and move and not self._is_standby:
            self._move(connection)
            return None
        return Found(Position(*rows[0][:3]), [Row(*row[5:]) for row in rows if row[5] is not None])

    def _move(self, connection: Connection) -> None:
        try:
            moved = _row(connection.execute(self._statements.move))[0]
        except (psycopg.errors.SerializationFailure, psycopg.errors.UniqueViolation):
            moved = 1
        if moved:  # there may be more
            self._listener.wake()

    def _vacuum(self, connection: Connection) -> None:
        """Vacuum the table, if many entries were deleted. Without the right to do so, PostgreSQL only warns."""
        if self._deleted is None or self._deleted < _VACUUM:
            return
        self._deleted = None
        try:
            connection.execute(self._statements.vacuum)
        except Unanswered:
            return
        except psycopg.Error:
            pass
        self._deleted = 0

    def _probe(self, content: str) -> None:
        with self._shared.lent() as connection:
            connection.execute(self._statements.probe, (content,))

    def _set_up_followed(self, connection: Connection) -> None:
        self._set_up(connection)
        self._listener.begin(connection)

    def _set_up(self, connection: Connection) -> None:
        """Create the tables of the log, unless they exist. Set the isolation level.

        :raises LogError: if they were created by another version, or cannot be created.
        """
        (isolation,) = _row(connection.execute("SHOW default_transaction_isolation"))
        if isolation != "read committed":
            connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED")
        try:
            version = _row(connection.execute(self._statements.version))[0]
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            version = self._create(connection)
        if version != VERSION:
            raise LogError(f"the log {self.prefix!r} was created by another version of ssehub: {version}")

    def _create(self, connection: Connection) -> int:
        try:
            with connection.transaction():
                connection.execute(lock(self._name))
                # Another process may have created them meanwhile, and use them. To create them again would lock it out.
                if _row(connection.execute(self._statements.existing))[0] is None:
                    connection.execute(creation(self._name, self._schema))
            return int(_row(connection.execute(self._statements.version))[0])
        except psycopg.Error as error:
            if connection.closed or may_pass(error):
                raise
            raise LogError(
                f"the tables {self.prefix}_* do not exist, and cannot be created: {reason_of(error)}. Run `ssehub"
                " migrate --log URL` as a user who may create tables, or run the SQL that it prints with --print"
            ) from error


def _replace(descriptor: int) -> None:
    """Let a descriptor lead nowhere. Its number stays in use, so that libpq cannot close another file."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(nowhere, descriptor, inheritable=False)
    finally:
        os.close(nowhere)


def _row(cursor: psycopg.Cursor[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return the only row of a result."""
    found = cursor.fetchone()
    if found is None:
        raise LogError("the table of the log has lost its row; restore it, or drop the tables to begin a new log")
    return found


def _execute(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> int:
    cursor = connection.cursor()
    if len(rows) == 1:
        cursor.execute(statement, rows[0])
    elif rows:
        cursor.executemany(statement, rows)
    return cursor.rowcount if rows else 0


_stores: weakref.WeakSet[PostgresStore] = weakref.WeakSet()
#: In a forked child, the stores of the parent with their connections, which are neither used nor closed here: to close
#: one would end the parent's session on the server.
_inherited: list[PostgresStore] = []


def _keep_inherited() -> None:
    for store in _stores:
        store.leave_sockets()
    _inherited.extend(_stores)
    _stores.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)
