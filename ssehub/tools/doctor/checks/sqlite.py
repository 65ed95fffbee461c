"""SQLite: checks whether the file of the log can be used, and whether the stream reads this log."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from ssehub.log.sql.prefix import check_prefix
from ssehub.log.sqlite.tables import VERSION
from ssehub.log.urls import sqlite_path
from ssehub.tools.doctor.finding import Finding, fail, ok, skip, warn
from ssehub.tools.doctor.target import Target

#: Seconds to wait for other writers.
_TIMEOUT = 5.0
#: Free space in bytes below which a disk counts as nearly full.
_NEARLY_FULL = 64 << 20
#: Size in bytes above which the write-ahead log has not been emptied for a long time. SQLite empties it at 4 MB.
_LARGE_WAL = 64 << 20


def ask(target: Target, epochs: frozenset[tuple[int, int]] | None) -> Iterator[Finding]:
    """Check the file, the rights to it, and the log in it. Nothing is created or changed.

    :param epochs: the partitions that the stream reads, each with its epoch; None if they are not known.
    """
    assert target.log is not None
    path = Path(sqlite_path(target.log)).absolute()
    prefix = check_prefix(target.log_name)
    if not path.is_file():
        yield fail(
            "sqlite file",
            f"there is no file {path}",
            "the path that the application uses, from the folder of its process",
        )
        return
    try:
        with contextlib.closing(_open(path)) as connection:
            connection.execute("PRAGMA schema_version")
            yield ok("sqlite file", f"{path}, SQLite {sqlite3.sqlite_version}")
            yield from _look(target, path, prefix, connection, epochs)
    except sqlite3.Error as error:
        yield fail("sqlite file", f"{path} cannot be read: {error}", _owner(path))


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_TIMEOUT, isolation_level=None)


def _look(
    target: Target,
    path: Path,
    prefix: str,
    connection: sqlite3.Connection,
    epochs: frozenset[tuple[int, int]] | None,
) -> Iterator[Finding]:
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("sqlite mode", lambda: _mode(connection)),
        ("sqlite disk", lambda: _disk(path)),
        ("sqlite rights", lambda: _rights(path, connection)),
        ("sqlite followers", lambda: _followers(path)),
        ("sqlite log", lambda: _log(target, path, prefix, connection, epochs)),
    )
    for check, judge in checks:
        try:
            yield judge()
        except (sqlite3.Error, OSError) as error:
            yield fail(check, f"{error}", _owner(path))


def _mode(connection: sqlite3.Connection) -> Finding:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        seen = f"journal_mode is {mode}: writers and readers wait for each other"
        return fail("sqlite mode", seen, "a hub that uses the file sets WAL mode; no other program must change it")
    return ok("sqlite mode", "WAL")


def _disk(path: Path) -> Finding:
    free = shutil.disk_usage(path.parent).free
    wal = path.with_name(f"{path.name}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if free < _NEARLY_FULL:
        return warn("sqlite disk", f"{free >> 20} MB are free: soon no message can be sent", "free space on the disk")
    if size > _LARGE_WAL:
        seen = f"{wal} has grown to {size >> 20} MB: a program keeps a transaction open"
        return warn("sqlite disk", seen, "end the transactions of the application that only read")
    return ok("sqlite disk", f"{free >> 20} MB are free")


def _rights(path: Path, connection: sqlite3.Connection) -> Finding:
    """Take the write lock, write, and roll back. SQLite does not refuse the lock to a user who may only read."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        (number,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {number}")
    except sqlite3.OperationalError as error:
        if " locked" not in str(error):
            return fail("sqlite rights", f"this user cannot write to the file: {error}", _owner(path))
        seen = f"another program has had the write lock for {_TIMEOUT:g} s: no message can be sent meanwhile"
        return fail("sqlite rights", seen, "shorter transactions in the application")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return ok("sqlite rights", "this user can write to the file")


def _followers(path: Path) -> Finding:
    folder = path.with_name(f"{path.name}-followers")
    if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        seen = f"this user cannot wake the processes that follow the log: {folder}; its messages arrive a little later"
        return warn("sqlite followers", seen, _owner(folder))
    count = len(os.listdir(folder)) if folder.is_dir() else 0
    if not count:
        seen = "no process follows the log at present"
        return warn("sqlite followers", seen, "if the application runs: the same file in --log and in the application")
    return ok("sqlite followers", f"processes that follow the log, or were killed lately: {count}")


def _log(
    target: Target,
    path: Path,
    prefix: str,
    connection: sqlite3.Connection,
    epochs: frozenset[tuple[int, int]] | None,
) -> Finding:
    names = [
        name.removesuffix("_head")
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%_head'")
    ]
    if prefix not in names:
        seen = f"there is no log {prefix!r} in {path}; the logs in it: {', '.join(names) or 'none'}"
        return fail("sqlite log", seen, f"--name {names[0]}" if names else "the file that the application uses")
    version, epoch = connection.execute(f"SELECT version, epoch FROM {prefix}_head").fetchone()
    if version != VERSION:
        seen = f"the log {prefix!r} has tables of version {version}, not {VERSION}"
        return fail("sqlite log", seen, "the same version of ssehub everywhere")
    if epochs is not None and epochs != {(0, epoch)}:
        seen = f"the stream does not read the log {prefix!r} in {path}, but another one"
        return fail("sqlite log", seen, "the same file and name in the application, and in --log and --name here")
    (count,) = connection.execute(f"SELECT count(*) FROM {prefix}_entries WHERE body IS NOT NULL").fetchone()
    holds = f"the log {prefix!r} holds {count} entries"
    if count > target.log_size + max(1000, target.log_size // 10):
        return warn(
            "sqlite log", f"{holds}, and size is {target.log_size}", "the same size in every process, and in --size"
        )
    if epochs is None:
        return skip("sqlite log", f"{holds}; no stream shows which log it reads")
    return ok("sqlite log", f"{holds}, and the stream reads it")


def _owner(path: Path) -> str:
    found = path.stat()
    return (
        f"the user that the application runs as; {path} belongs to uid {found.st_uid}, mode {found.st_mode & 0o777:o}"
    )
