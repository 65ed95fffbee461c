"""File: a connection to a SQLite file that is opened again when the file was replaced.

SQLite's rules that matter here:

* Nothing else in the process may open and close the file, because that would release SQLite's locks
  (https://www.sqlite.org/howtocorrupt.html, 2.2). So this module only asks for the file's inode.
* A connection must not be used after a fork (2.6). SQLite also keeps notes about its locks for each file, and a child
  would inherit them. So all connections are closed before a fork, and opened again when they are needed.
* WAL mode needs shared memory, which network file systems do not have (https://www.sqlite.org/wal.html).
* SQLite's own waiting for a lock would block all greenlets, and wait up to 0.1 s at a time. So this module waits.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ssehub.exceptions import LogError

T = TypeVar("T")

#: File systems of other machines, in which SQLite's WAL mode does not work.
_NETWORK = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "ncpfs", "fuse.sshfs", "fuse.glusterfs")
)
#: The first and the longest wait for other writers, in seconds.
_FIRST_WAIT, _LONGEST_WAIT = 0.0001, 0.004
#: The maximum number of seconds to wait for a thread that uses a connection, before a fork.
_FORK_WAIT = 5.0

_Identity = tuple[int, int]


class File:
    """A connection to a SQLite file, for one thread at a time. Safe to use from any thread.

    Methods raise the exceptions of :mod:`sqlite3`, or :class:`~ssehub.LogError` if the cause is known.

    :param path: the file.
    :param set_up: called with each new connection; creates the tables. Its arguments are the connection, and the time
        at which it must have ended (``time.monotonic()``).
    :param timeout: the maximum number of seconds to wait for other threads and processes, if no deadline is given.
    """

    def __init__(self, path: str, set_up: Callable[[sqlite3.Connection, float], None], timeout: float) -> None:
        self._path = path
        self._set_up = set_up
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: _Identity | None = None
        #: The number of times that the file was opened.
        self.openings: int = 0
        _files.add(self)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection to the calling thread. The file is opened first, if necessary."""
        with self._lent(time.monotonic() + self._timeout) as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self, deadline: float | None = None) -> Iterator[sqlite3.Connection]:
        """Lend the connection within a write transaction, which is committed at the end.

        :param deadline: the latest time until which to wait for other writers (``time.monotonic()``).
        :raises LogError: if the file was replaced meanwhile. Then it is not known whether the new file has the changes.
        """
        deadline = time.monotonic() + self._timeout if deadline is None else deadline
        with self._lent(deadline) as connection:
            patiently(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
            yield connection
            patiently(lambda: connection.execute("COMMIT"), deadline)
            if _identity(self._path) != self._identity:
                raise LogError(f"{self._path} was replaced while it was written to")

    def close(self) -> None:
        """Close the connection. It is opened again at the next use."""
        with self._lock:
            self._close()

    @contextlib.contextmanager
    def _lent(self, deadline: float) -> Iterator[sqlite3.Connection]:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise LogError("other threads of this process have used the file for too long")
        try:
            connection = self._connection
            if connection is None or _identity(self._path) != self._identity:
                connection = self._open(deadline)
            try:
                yield connection
            except sqlite3.Error as error:
                if not _is_busy(error):
                    self._close()  # it may not be usable any more
                raise
            finally:
                if self._connection is not None and connection.in_transaction:
                    connection.rollback()
        finally:
            self._lock.release()

    def _open(self, deadline: float) -> sqlite3.Connection:
        self._close()
        _check_place(self._path)
        is_new = _identity(self._path) is None
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            patiently(lambda: _use_wal(connection, self._path, is_new), deadline)
            connection.execute("PRAGMA synchronous = NORMAL")
            self._set_up(connection, deadline)
            self._identity = _identity(self._path)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise type(error)(f"{self._path}: {error}") from error
            raise
        self._connection = connection
        self.openings += 1
        return connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def patiently(call: Callable[[], T], deadline: float) -> T:
    """Call a function again while another connection has the lock that it needs.

    :param deadline: the latest time of a call (``time.monotonic()``).
    :raises LogError: if the lock was not free in this time.
    """
    wait = _FIRST_WAIT
    while True:
        try:
            return call()
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            if time.monotonic() + wait > deadline:
                raise LogError("another program has locked the database for too long") from error
        time.sleep(wait * random.uniform(0.5, 1.0))
        wait = min(2 * wait, _LONGEST_WAIT)


def _is_busy(error: sqlite3.Error) -> bool:
    return isinstance(error, sqlite3.OperationalError) and " locked" in str(error)


def _identity(path: str) -> _Identity | None:
    """Return what distinguishes a file from the one that replaced it; None if there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _use_wal(connection: sqlite3.Connection, path: str, is_new: bool) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if is_new:
        with contextlib.suppress(OSError):
            os.chmod(path, 0o600)  # SQLite gives its other files the same mode
    if mode != "wal":
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise LogError(f"{path} cannot be used in WAL mode")


def _check_place(path: str) -> None:
    """Check the folder of the file.

    :raises LogError: if it does not exist, or belongs to another machine.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        raise LogError(f"there is no folder {folder}")
    kind = _file_system(folder)
    if kind in _NETWORK:
        raise LogError(f"{path} is on a network file system ({kind}), which SQLite cannot share: use a local disk")


def _file_system(folder: Path) -> str:
    """Return the type of the file system of a folder; ``""`` if unknown."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    folder = folder.resolve()
    found, kind = -1, ""
    for mount in mounts:
        point = Path(mount[1].encode().decode("unicode_escape"))
        if (point == folder or point in folder.parents) and len(point.parts) >= found:
            found, kind = len(point.parts), mount[2]
    return kind


_files: weakref.WeakSet[File] = weakref.WeakSet()
#: The files whose connections are closed for a fork that is under way.
_held: list[File] = []


def _before_fork() -> None:
    for file in list(_files):
        if file._lock.acquire(timeout=_FORK_WAIT):
            _held.append(file)
            file._close()


def _after_fork() -> None:
    while _held:
        _held.pop()._lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
