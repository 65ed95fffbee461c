"""Place: where a SQLite file is, and whether it is still the same file. No connections.

SQLite keeps two more files beside the file, ``-wal`` and ``-shm``. They belong to one file, but SQLite finds them by
their names only. If the file was replaced by another one, SQLite would take the old ``-wal`` for a part of the new
file. So the process that notices the replacement deletes the old ones first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ssehub.exceptions import LogError

#: File systems of other machines, in which SQLite's WAL mode does not work.
_NETWORK = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "ncpfs", "fuse.sshfs", "fuse.glusterfs")
)
_BESIDE = ("-wal", "-shm")
_ESCAPED = re.compile(rb"\\([0-7]{3})")

#: The device of a file, its inode, and the inode of its ``-wal``.
Identity = tuple[int, int, int]


def identity(path: str) -> Identity | None:
    """Return what distinguishes a file in use from one that replaced it; None if it does not exist."""
    try:
        found = os.stat(path)
        return found.st_dev, found.st_ino, os.stat(path + "-wal").st_ino
    except OSError:
        return None


def is_same(path: str, other: str) -> bool:
    """Return whether two paths lead to the same file."""
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them does not exist yet
        return bool(path) and os.path.realpath(path) == os.path.realpath(other)


def inodes(path: str) -> dict[str, int]:
    """Return the inodes of the files that are beside a file, and of the file itself, by the end of their names."""
    found = {}
    for end in ("", *_BESIDE):
        with contextlib.suppress(OSError):
            found[end] = os.stat(path + end).st_ino
    return found


def remove_old(path: str, known: dict[str, int]) -> None:
    """If a file was replaced or deleted, delete what its predecessor has left beside it.

    :param known: the result of :func:`inodes` when the predecessor was in use. A connection to it must still be open,
        because otherwise a new file could have the same inode.
    :raises sqlite3.OperationalError: if another process is doing the same now.
    """
    if inodes(path).get("") == known.get(""):
        return
    with _alone(os.path.dirname(path)):
        for end in _BESIDE:
            with contextlib.suppress(OSError):
                if os.stat(path + end).st_ino == known.get(end):
                    os.unlink(path + end)


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Lock a folder against other processes that call :func:`remove_old`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise sqlite3.OperationalError("the folder is locked") from error
        yield
    finally:
        os.close(descriptor)


def check_place(path: str) -> None:
    """Check the folder of a file.

    :raises LogError: if it does not exist, cannot be used, or belongs to another machine.
    """
    folder = Path(path).parent
    try:
        if not folder.is_dir():
            raise LogError(f"there is no folder {folder}")
        kind = file_system(folder.resolve(), _mounts())
    except (OSError, RuntimeError) as error:
        raise LogError(f"the folder {folder} cannot be used: {error}") from error
    if kind in _NETWORK:
        raise LogError(f"{path} is on a network file system ({kind}), which SQLite cannot share: use a local disk")


def _mounts() -> bytes:
    try:
        return Path("/proc/mounts").read_bytes()
    except OSError:
        return b""


def file_system(folder: Path, mounts: bytes) -> str:
    """Return the type of the file system of a folder; ``""`` if unknown.

    :param mounts: the content of ``/proc/mounts``. Later lines hide earlier ones at the same place.
    """
    found, kind = -1, ""
    for line in mounts.splitlines():
        _, place, name, *_ = (*line.split(b" "), b"", b"", b"")
        point = Path(os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), place)))
        if (point == folder or point in folder.parents) and len(point.parts) >= found:
            found, kind = len(point.parts), name.decode("ascii", "replace")
    return kind
