"""File: a connection to a SQLite file that is opened again when the file was replaced.

SQLite's rules that matter here:

* Nothing else in the process may open and close the file, because that would release SQLite's locks
  (https://www.sqlite.org/howtocorrupt.html, 2.2). So this package only asks for the file's inode.
* A connection must not be used after a fork (2.6). SQLite also keeps notes about its locks for each file, and a child
  would inherit them. So all connections are closed before a fork, and opened again when they are needed.
* WAL mode needs shared memory, which network file systems do not have (https://www.sqlite.org/wal.html).
* SQLite's own waiting for a lock would block all greenlets, and wait up to 0.1 s at a time. So this module waits.

There are two locks. A thread that writes first takes its *turn*, which it keeps while it waits for other processes. The
connection itself is locked only during one attempt. So a thread that waits never holds up a fork, a read or ``close``.

An exception of a signal handler can end any of these steps. So the locks are reentrant: only their owner can release
them, and it can try to without knowing whether it has them.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from ssehub.exceptions import LogError
from ssehub.log.sqlite.place import Identity, check_place, identity, inodes, remove_old

T = TypeVar("T")

#: The first and the longest wait for other writers, in seconds. With eight senders on two busy cores, 0.004 doubled the
#: longest append, and 0.001 made fewer appends.
_FIRST_WAIT, _LONGEST_WAIT = 0.0001, 0.002
#: The maximum number of seconds to wait for a thread that uses a connection, before a fork.
_FORK_WAIT = 5.0
#: The error text if a thread of the same process does not let go.
_BUSY = "other threads of this process have used the file for too long"


class File:
    """A connection to a SQLite file, for one thread at a time. Safe to use from any thread.

    Methods raise the exceptions of :mod:`sqlite3`, or :class:`~ssehub.LogError` if the cause is known.

    :param path: the file.
    :param set_up: called with each new connection; creates the tables.
    :param timeout: the maximum number of seconds to wait for other threads and processes, if no deadline is given.
    """

    def __init__(self, path: str, set_up: Callable[[sqlite3.Connection], None], timeout: float) -> None:
        self._path = path
        self._set_up = set_up
        self._timeout = timeout
        self._turn = threading.RLock()
        self._lock = threading.RLock()
        #: The thread that uses the connection.
        self._user: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._identity: Identity | None = None
        self._inodes: dict[str, int] = {}
        self._interrupted = threading.Event()
        self._closed = False
        #: The number of times that the file was opened.
        self.openings: int = 0
        _files.add(self)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call a function with the connection. The file is opened first, if necessary.

        :param work: it is called again if another program has locked the file.
        """
        return self._try(work, time.monotonic() + self._timeout, self._is_moved)

    def write(self, work: Callable[[sqlite3.Connection], T], deadline: float | None = None) -> T:
        """Call a function with the connection, within a write transaction.

        :param work: it is called again if another program has locked the file.
        :param deadline: the latest time until which to wait for others (``time.monotonic()``).
        :raises LogError: if others have locked the file for too long, or if the file was replaced meanwhile. Then the
            changes are in a file that is gone. They are not repeated in the new one, because other processes may have
            read them already.
        """
        deadline = time.monotonic() + self._timeout if deadline is None else deadline

        def _change(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
            return result

        patience = max(0.0, deadline - time.monotonic())
        try:
            if not self._turn.acquire(timeout=patience):
                raise LogError(_BUSY)
            result = self._try(_change, deadline, self._is_moved)
            if self._is_moved():
                raise LogError(
                    f"{self._path} was replaced while it was written to; it is not known whether the changes were seen"
                )
            return result
        finally:
            try:  # noqa: SIM105 - a signal handler can run when a function of Python begins
                self._turn.release()
            except RuntimeError:  # this thread does not have it
                pass

    def interrupt(self) -> None:
        """Make all threads that wait give up, now and in future. An attempt without waiting is still possible."""
        self._interrupted.set()

    def close(self) -> None:
        """Close the connection for good."""
        self.interrupt()
        self._closed = True
        if self._lock.acquire(timeout=self._timeout):
            self._close()
            self._lock.release()

    def _is_moved(self) -> bool:
        return identity(self._path) != self._identity

    def _try(self, work: Callable[[sqlite3.Connection], T], deadline: float, is_stale: Callable[[], bool]) -> T:
        """Attempt something until no other connection has the lock that it needs.

        :raises LogError: if the lock was not free until the deadline, or the file is being closed.
        """
        wait = _FIRST_WAIT
        while True:
            try:
                return self._attempt(work, deadline, is_stale)
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                if time.monotonic() + wait > deadline:
                    raise LogError(f"another program has locked {self._path} for too long") from error
                cause = error
            if self._interrupted.wait(wait * random.uniform(0.5, 1.0)):
                raise LogError("the log is closed") from cause
            wait = min(2 * wait, _LONGEST_WAIT)

    def _attempt(self, work: Callable[[sqlite3.Connection], T], deadline: float, is_stale: Callable[[], bool]) -> T:
        me = threading.get_ident()
        if self._user == me:
            raise LogError("the log cannot be used in a signal handler that has interrupted it")
        patience = max(0.0, deadline - time.monotonic())
        try:
            if not self._lock.acquire(timeout=patience):
                raise LogError(_BUSY)
            self._user = me
            return self._use(work, is_stale)
        finally:
            if self._user == me:
                self._user = None
            try:  # noqa: SIM105 - a signal handler can run when a function of Python begins
                self._lock.release()
            except RuntimeError:  # this thread does not have it
                pass

    def _use(self, work: Callable[[sqlite3.Connection], T], is_stale: Callable[[], bool]) -> T:
        connection = self._connection
        if connection is None or is_stale():
            connection = self._open()
        try:
            try:
                return work(connection)
            finally:
                if connection.in_transaction:
                    connection.rollback()
        except sqlite3.Error as error:
            if not is_busy(error):
                self._close()  # it may not be usable any more
            raise

    def _open(self) -> sqlite3.Connection:
        check_place(self._path)
        if self._inodes:
            remove_old(self._path, self._inodes)
        self._close()
        if self._closed:
            raise LogError("the log is closed")
        try:
            connection = self._connect()
        except sqlite3.Error as error:
            hint = "; check the rights of the file and of its folder" if "unable to open" in str(error) else ""
            raise type(error)(f"{self._path}: {error}{hint}") from error
        self._connection = connection
        self.openings += 1
        return connection

    def _connect(self) -> sqlite3.Connection:
        is_new = not os.path.exists(self._path)
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            _use_wal(connection, self._path, is_new)
            connection.execute("PRAGMA synchronous = NORMAL")
            self._set_up(connection)
            self._identity, self._inodes = identity(self._path), inodes(self._path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def is_busy(error: BaseException) -> bool:
    """Return whether an error of SQLite says that another connection has a lock that is needed."""
    return isinstance(error, sqlite3.OperationalError) and (" locked" in str(error) or "locking protocol" in str(error))


def _use_wal(connection: sqlite3.Connection, path: str, is_new: bool) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if is_new:
        with contextlib.suppress(OSError):
            os.chmod(path, 0o600)  # SQLite gives its other files the same mode
    if mode != "wal":
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise LogError(f"{path} cannot be used in WAL mode")


_files: weakref.WeakSet[File] = weakref.WeakSet()
#: The files whose connections are closed for a fork that is under way, by the thread that forks.
_held: dict[int, list[File]] = {}
#: Connections of the parent that could not be closed before the fork. A child must not even close them.
_abandoned: list[sqlite3.Connection] = []


def _all_files() -> list[File]:
    while True:
        with contextlib.suppress(RuntimeError):  # another thread has made one meanwhile
            return list(_files)


def _before_fork() -> None:
    held = _held[threading.get_ident()] = []
    for file in _all_files():
        if file._user != threading.get_ident() and file._lock.acquire(timeout=_FORK_WAIT):
            held.append(file)
            file._close()


def _after_fork() -> None:
    for file in _held.pop(threading.get_ident(), ()):
        file._lock.release()


def _after_fork_in_child() -> None:
    for file in _all_files():
        if file._connection is not None:
            _abandoned.append(file._connection)
            file._connection = None
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
