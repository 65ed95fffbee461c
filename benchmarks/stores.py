"""Stores: the stores of logs for the storm, with the failures that each kind of store can have.

==========  ===========================================================================================================
Store       Failures
==========  ===========================================================================================================
redis       The server is stopped, and comes back with its saved data or with none. It kills connections. The log is
            trimmed, rolled back to an older dump, and flushed.
sqlite      Another program holds the write lock. The disk is full for a while. The log is trimmed, restored from an
            older copy, or the file is replaced by an older copy, or deleted.
postgresql  The server crashes, does not answer for a while, or ends connections. Another program locks the table. The
            log is trimmed, or loses its newest entries, as from an older backup.
==========  ===========================================================================================================

The store is on a disk of its own (tmpfs), which can be filled, if the user is root.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import redis

from ssehub.log import Log
from ssehub.log.redis.stream import stream_key
from ssehub.log.urls import open_log
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer

Fault = Callable[[], None]
#: The size of the disk for a log in a file, in bytes.
_DISK = 64 << 20


class Store(ABC):
    """The store of a log, which is started in a folder."""

    #: The URL of the log.
    url: str
    partitions: int = 1
    #: Causes of failures. Each is a function without arguments, which returns when the cause is gone.
    faults: Sequence[Fault]
    #: The exceptions of functions in ``faults`` that mean that the failure was not possible at this moment.
    errors: tuple[type[Exception], ...]

    def __init__(self) -> None:
        #: The periods in which the log may have lost data: from taking a copy to the end of restoring it.
        self.rollbacks: list[tuple[float, float]] = []

    def log(self, size: int) -> Log:
        """Return the log, for one more process."""
        return open_log(self.url, size=size, **({"partitions": self.partitions} if self.partitions != 1 else {}))

    @abstractmethod
    def close(self) -> None:
        """End the store."""


class RedisStore(Store):
    """A Redis server.

    :param folder: the folder for its data.
    :param chance: the source of random numbers.
    :param partitions: the number of partitions of the log.
    """

    errors = (redis.RedisError,)

    def __init__(self, folder: Path, chance: random.Random, partitions: int = 1) -> None:
        super().__init__()
        self._folder = folder
        self._chance = chance
        self._server = RedisServer(folder)
        self.url = self._server.url
        self.partitions = partitions
        self._keys = [stream_key("ssehub", number, partitions) for number in range(partitions)]
        #: The time of the dumps, and the dump of each key.
        self._dumps: tuple[float, list[Any]] | None = None
        self.faults = (self._kill_connections, self._trim, self._take_dump, self._roll_back, self._flush,
                       self._restart_empty, self._restart_saved)  # fmt: skip

    def close(self) -> None:
        """End the server."""
        self._server.close()

    def _kill_connections(self) -> None:
        for _ in range(20):
            self._server.client.client_kill_filter(_type="normal", skipme=True)
            time.sleep(0.01)

    def _trim(self) -> None:
        for key in self._keys:
            self._server.client.xtrim(key, maxlen=5, approximate=False)

    def _take_dump(self) -> None:
        self._dumps = time.monotonic(), [self._server.client.dump(key) for key in self._keys]

    def _roll_back(self) -> None:
        if self._dumps is None:
            return
        for key, dump in zip(self._keys, self._dumps[1], strict=True):
            if dump:
                self._server.client.restore(key, 0, dump, replace=True)
        self.rollbacks.append((self._dumps[0], time.monotonic()))

    def _flush(self) -> None:
        self._server.client.flushall()
        self._dumps = None

    def _restart_empty(self) -> None:
        self._server.kill()
        (self._folder / "dump.rdb").unlink(missing_ok=True)
        time.sleep(self._chance.uniform(0, 1))
        self._server.start()
        self._dumps = None

    def _restart_saved(self) -> None:
        began = time.monotonic()
        self._server.client.save()
        time.sleep(self._chance.uniform(0, 0.5))
        self._server.kill()
        time.sleep(self._chance.uniform(0, 1))
        self._server.start()
        self.rollbacks.append((began, time.monotonic()))


class SQLiteStore(Store):
    """A SQLite file.

    :param folder: the folder for the file.
    :param chance: the source of random numbers.
    """

    errors = (sqlite3.Error,)

    def __init__(self, folder: Path, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._disk = folder / "disk"
        self._disk.mkdir()
        self._is_mounted = os.geteuid() == 0 and _mount(self._disk)
        self._path = self._disk / "hub.db"
        self._copy = self._disk / "copy.db"
        self.url = f"sqlite:{self._path}"
        #: When the copy was begun; None if there is no copy.
        self._copied: float | None = None
        self.faults = (self._hold_the_lock, self._trim, self._take_copy, self._restore, self._take_copy, self._replace,
                       self._delete, *([self._fill_the_disk] if self._is_mounted else []))  # fmt: skip

    def close(self) -> None:
        """Unmount the disk."""
        if self._is_mounted:
            subprocess.run(["umount", "-l", self._disk], check=True)

    def _connect(self, path: Path) -> contextlib.closing[sqlite3.Connection]:
        return contextlib.closing(sqlite3.connect(path, timeout=5.0, isolation_level=None))

    def _hold_the_lock(self) -> None:
        with self._connect(self._path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(self._chance.uniform(1.0, 3.0))
            connection.execute("ROLLBACK")

    def _trim(self) -> None:
        with self._connect(self._path) as connection:
            connection.execute("DELETE FROM ssehub_entries WHERE number <= (SELECT number - 5 FROM ssehub_head)")

    def _take_copy(self) -> None:
        self._copied = None
        self._copy.unlink(missing_ok=True)
        began = time.monotonic()
        with self._connect(self._path) as source, self._connect(self._copy) as copy:
            source.backup(copy)
        self._copied = began

    def _restore(self) -> None:
        """Restore the copy into the file, as the command ``.restore`` of the sqlite3 shell does."""
        if self._copied is not None:
            with self._connect(self._copy) as source, self._connect(self._path) as file:
                source.backup(file)
            self.rollbacks.append((self._copied, time.monotonic()))

    def _replace(self) -> None:
        """Replace the file while it is in use. The files beside it belong to the old one, and have to go first."""
        if self._copied is not None:
            self._remove_beside()
            self._copy.replace(self._path)
            self.rollbacks.append((self._copied, time.monotonic()))
            self._copied = None

    def _delete(self) -> None:
        self._remove_beside()
        self._path.unlink(missing_ok=True)
        self._copied = None

    def _remove_beside(self) -> None:
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _fill_the_disk(self) -> None:
        filler = self._disk / "filler"
        try:
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            time.sleep(self._chance.uniform(0.5, 2.0))
        finally:
            filler.unlink()


class PostgresStore(Store):
    """A PostgreSQL server, which loses nothing in a crash.

    :param folder: not used: the server has a folder of its own.
    :param chance: the source of random numbers.
    """

    errors = (psycopg.Error,)

    def __init__(self, folder: Path, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self._server = PostgresServer()
        self.url = self._server.dsn()
        self.faults = (self._crash, self._pause, self._end_connections, self._hold_the_lock, self._trim,
                       self._roll_back)  # fmt: skip

    def close(self) -> None:
        """End the server."""
        self._server.close()

    def _crash(self) -> None:
        self._server.kill()
        time.sleep(self._chance.uniform(0, 1))
        self._server.start()

    def _pause(self) -> None:
        self._server.pause()
        time.sleep(self._chance.uniform(0.5, 2.0))
        self._server.go_on()

    def _end_connections(self) -> None:
        for _ in range(5):
            self._server.end_backends()
            time.sleep(0.01)

    def _hold_the_lock(self) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute("LOCK TABLE ssehub_entries IN EXCLUSIVE MODE")
            time.sleep(self._chance.uniform(1.0, 3.0))

    def _trim(self) -> None:
        self._server.run("DELETE FROM ssehub_entries WHERE number <= (SELECT max(number) - 5 FROM ssehub_entries)")

    def _roll_back(self) -> None:
        """Remove the entries of the last moment. An older entry stays: without one, the log would be a new one."""
        began = time.monotonic()
        ((number,),) = self._server.run("SELECT max(number) FROM ssehub_entries")
        time.sleep(self._chance.uniform(0.2, 1.0))
        if self._server.run("SELECT 1 FROM ssehub_entries WHERE number <= %s LIMIT 1", number):
            self._server.run("DELETE FROM ssehub_entries WHERE number > %s", number)
            self.rollbacks.append((began, time.monotonic()))


def _mount(folder: Path) -> bool:
    """Mount a small disk in memory. Return whether that is possible here."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(folder)]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


#: The stores by the name of their log.
STORES: dict[str, Callable[..., Store]] = {"redis": RedisStore, "sqlite": SQLiteStore, "postgresql": PostgresStore}
