"""SQLiteLog: a log in a SQLite file, which the processes of one machine share."""

from __future__ import annotations

import os
from pathlib import Path

from ssehub.log.sql.log import SQLLog
from ssehub.log.sql.prefix import check_prefix
from ssehub.log.sqlite.store import SQLiteStore


class SQLiteLog(SQLLog):
    """A log in a SQLite file. All processes of one machine can append to the file and follow it.

    No server is needed. The log outlives the processes, deploys and reboots. Each process keeps the newest entries in
    memory, and its clients are served from there. A process that appends an entry wakes the others, so an entry reaches
    them in less than a millisecond. Entries that other programs write, such as a trigger or the ``sqlite3`` shell, are
    found within a twentieth of a second.

    The file is in WAL mode, so it must be on a local disk. It can be the database of your application: then a message
    can be part of a transaction, see ``within`` in :meth:`ssehub.Hub.broadcast`. After a power failure the newest
    entries may be missing (``synchronous=NORMAL``); clients that had received them get a gap event.

    To restore a backup while processes run, use ``.restore`` of the ``sqlite3`` shell. If the file is replaced instead,
    running processes notice it; but do not start others at the same moment.

    :param path: the file. It is created if it does not exist, with access for its owner only. Its folder must exist.
        Beside it are SQLite's own files, and the folder ``<path>-followers`` with a socket for each process.
    :param name: the name of the log, with which the names of its tables begin: letters, digits and ``_``. Each hub in a
        file needs its own.
    :param size: the number of newest entries to keep. The file may hold 1,000 more, or a tenth of ``size``.
    :param zone_size: the number of newest entries of each zone that are protected, so that a busy zone does not push
        out the entries of a quiet one; see :class:`~ssehub.MemoryLog`.
    :param ttl: seconds that an entry is kept; None for no limit.
    :param timeout: the maximum number of seconds that an append waits for other writers before it raises
        :class:`~ssehub.LogError`.
    :param lease: seconds after which other processes forget a process that was killed.
    :raises ValueError: if a number is out of range, or the name or the path is invalid.
    :raises TypeError: if an argument has the wrong type.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str = "ssehub",
        size: int = 10_000,
        zone_size: int | None = None,
        ttl: float | None = None,
        timeout: float = 5.0,
        lease: float = 15.0,
    ) -> None:
        text = os.fspath(path)
        if not isinstance(text, str):
            raise TypeError(f"path must be a str, not {type(text).__name__}")
        if not text or "\0" in text or text.startswith((":", "file:")):
            raise ValueError(f"path must be the path of a file, not {text!r}; a log in memory is a MemoryLog")
        if text.startswith("sqlite:"):
            raise ValueError(f"path is a URL: write Hub({text!r}), or SQLiteLog with the path alone")
        #: Absolute, because a process may change its folder.
        self._path = str(Path(text).absolute())
        self._name = check_prefix(name)
        super().__init__(size=size, zone_size=zone_size, ttl=ttl, timeout=timeout, lease=lease)

    def make_store(self) -> SQLiteStore:
        """Return the log's store for this process."""
        return SQLiteStore(self._path, self._name, self._timeout)
