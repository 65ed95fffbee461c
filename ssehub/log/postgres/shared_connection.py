"""SharedConnection: a connection that is lent to one thread at a time, and is opened again after it was lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import psycopg
from psycopg.pq import TransactionStatus

from ssehub.exceptions import LogError
from ssehub.log.postgres.connection import Connection
from ssehub.log.postgres.link import Link, reason_of

#: The minimum number of seconds that a statement may take, however little time is left.
_SHORTEST = 0.05
#: Errors after which a new connection may work: the server has become a standby, or the tables were dropped.
_ANEW = ("25006", "3F000", "42P01", "42883")
#: The maximum number of seconds that ``close`` waits for a thread that uses the connection: it notices within 0.1.
_LEAVE = 0.5


class SharedConnection:
    """A connection to PostgreSQL, for one thread at a time. Safe to use from any thread.

    :param link: the server.
    :param set_up: called with each new connection.
    :param timeout: the maximum number of seconds to wait for other threads, and for an answer.
    """

    def __init__(self, link: Link, set_up: Callable[[Connection], None], timeout: float) -> None:
        self._link = link
        self._set_up = set_up
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        #: Whether the thread that uses the connection has to close it.
        self._leaving = False
        #: The number of connections so far.
        self.openings: int = 0
        #: The id of the connection's process on the server; 0 without a connection.
        self.pid: int = 0

    @property
    def connection(self) -> Connection | None:
        """The connection, if there is one. Only for its descriptor: see :meth:`lent`."""
        return self._connection

    @contextlib.contextmanager
    def lent(self, wait: float | None = None, patience: float | None = None) -> Iterator[Connection]:
        """Lend the connection to the calling thread. It is opened first, if necessary.

        :param wait: the maximum number of seconds to wait for other threads; None for ``timeout``.
        :param patience: the maximum number of seconds to wait for an answer; None for ``timeout``.
        :raises LogError: if other threads use the connection for too long.
        """
        if not self._lock.acquire(timeout=max(0.0, self._timeout if wait is None else wait)):
            raise LogError("other threads of this process have used the connection for too long")
        try:
            connection = self._connection
            if connection is None or connection.closed:
                connection = self._open()
            connection.patience = max(_SHORTEST, self._timeout if patience is None else patience)
            try:
                yield connection
            except BaseException as error:
                self._clean_up(connection, error)
                raise
        finally:
            if self._leaving:
                self._drop()
            self._lock.release()

    def close(self) -> None:
        """Close the connection. A thread that waits for an answer gets an error. It is opened again at the next use."""
        self._leaving = True
        connection = self._connection
        if not self._lock.acquire(blocking=False):
            if connection is not None:
                connection.interrupt()
            if not self._lock.acquire(timeout=_LEAVE):
                return  # the thread that uses the connection closes it
        try:
            self._drop()
        finally:
            self._lock.release()

    def _clean_up(self, connection: Connection, error: BaseException) -> None:
        """Make the connection usable after an error, or close it. Shorten the text of the error to one line."""
        if isinstance(error, psycopg.Error):
            error.args = (reason_of(error),)
        if connection.closed or must_reconnect(error):
            self._drop()
        elif connection.info.transaction_status != TransactionStatus.IDLE:
            connection.rollback()

    def _open(self) -> Connection:
        connection = self._link.connect()
        try:
            connection.patience = self._timeout
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self.pid = connection, connection.info.backend_pid
        self.openings += 1
        return connection

    def _drop(self) -> None:
        connection, self._connection, self.pid, self._leaving = self._connection, None, 0, False
        if connection is not None:
            connection.close()


def must_reconnect(error: BaseException) -> bool:
    """Return whether a connection cannot be used after an error, or its set-up has to be repeated."""
    if not isinstance(error, psycopg.Error):
        return not isinstance(error, LogError)
    return error.sqlstate is None or error.sqlstate in _ANEW or error.diag.severity_nonlocalized in ("FATAL", "PANIC")
