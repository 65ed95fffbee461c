"""Partitions: the partitions of a log that this process holds, and the followers that read their streams."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from ssehub.exceptions import LogError
from ssehub.log.base import Readable
from ssehub.log.merged import MergedPartitions
from ssehub.log.packet import Command, Entry
from ssehub.log.position import Position
from ssehub.log.redis.follower import BLOCK, Follower
from ssehub.log.redis.link import Link
from ssehub.log.redis.partition import Partition

#: Seconds that a partition is still followed after its last connection has ended, because clients often reconnect.
_LINGER = 30.0


class Partitions:
    """The partitions that are in use in this process, and their followers. Safe to use from any thread.

    There is one follower for all partitions. On a cluster, there is one for each partition. Methods that open a
    partition raise the errors of redis-py.

    :param link: makes the followers' clients.
    :param make: makes a partition. It may have to connect to Redis first.
    :param check: called before a partition is opened; raises an error if this process must not open it.
    :param timeout: the maximum number of seconds that a follower waits for an answer.
    """

    def __init__(self, link: Link, make: Callable[[int], Partition], check: Callable[[], None], timeout: float) -> None:
        self._link = link
        self._make = make
        self._check = check
        self._timeout = timeout
        self._lock = threading.Lock()
        self._partitions: dict[int, Partition] = {}
        self._followers: dict[int, Follower] = {}
        self._callbacks: tuple[Callable[[Entry], int], Callable[[Position, Sequence[Command]], None]] | None = None
        self._closed = False

    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Command]], None]) -> None:
        """Set the callbacks; see :meth:`ssehub.Log.start`.

        :raises LogError: if callbacks are set already.
        """
        with self._lock:
            if self._callbacks is not None:
                raise LogError("this log belongs to another hub already; give each hub its own log")
            self._callbacks = deliver, broken

    def give_up(self) -> None:
        """Undo :meth:`start`, because the start of the log has failed."""
        self._callbacks = None

    def held(self, numbers: Iterable[int]) -> list[Partition]:
        """Return the open partitions among ``numbers``."""
        return [
            partition for partition in map(self._partitions.get, numbers) if partition is not None and partition.is_open
        ]

    def hasten(self) -> None:
        """Read the streams at once, because this process has just appended an entry."""
        for follower in list(self._followers.values()):
            with contextlib.suppress(RuntimeError):  # reported by its `failure`
                follower.start()
            follower.hasten()

    @property
    def failure(self) -> str | None:
        """Why some partitions cannot be followed now; None if all are followed."""
        failures = [follower.failure for follower in list(self._followers.values())]
        return next((failure for failure in failures if failure), None)

    @property
    def unreadable(self) -> int:
        """The number of entries that were skipped because they cannot be read."""
        return sum(partition.unreadable for partition in list(self._partitions.values()))

    def open(self, numbers: Sequence[int]) -> Readable:
        """Open partitions, and return a view that reads them as one.

        They are followed until :meth:`release`, and half a minute longer.

        :raises LogError: if the log is not started, or is closed.
        """
        if self._callbacks is None:
            raise LogError("the log is not started")
        opened: dict[int, Readable] = {}
        try:
            for number in numbers:
                made = None if number in self._partitions else self._make(number)  # not under the lock: it may connect
                with self._lock:
                    partition = self._partitions.get(number) or made or self._make(number)
                    self._partitions[number] = partition
                    partition.users += 1
                opened[number] = partition
                self._open(partition)
        except BaseException:
            self.release(tuple(opened))
            raise
        return opened[numbers[0]] if len(numbers) == 1 else MergedPartitions(opened)

    def release(self, numbers: Iterable[int]) -> None:
        """Undo one :meth:`open` of these partitions."""
        with self._lock:
            for number in numbers:
                partition = self._partitions[number]
                partition.users -= 1
                partition.left = time.monotonic()

    def close(self, timeout: float) -> None:
        """Stop following. The entries in memory can still be read. Idempotent.

        :param timeout: the maximum number of seconds to wait for the threads.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            followers, partitions = list(self._followers.values()), list(self._partitions.values())
        for partition in partitions:
            partition.close()
        for follower in followers:
            follower.close(max(0.0, deadline - time.monotonic()))

    def _open(self, partition: Partition) -> None:
        if not partition.is_open:
            partition.opening.do(lambda: self._read(partition))
        follower = self._follower(partition.number if self._link.is_cluster else 0)
        try:
            follower.start()
        except RuntimeError as error:
            raise LogError(f"the log cannot be followed: {error}") from error
        if not partition.followed.is_set():
            follower.hurry(partition)

    def _read(self, partition: Partition) -> None:
        assert self._callbacks is not None
        _, broken = self._callbacks
        self._check()
        partition.open(lambda end: broken(end, ()))

    def _follower(self, group: int) -> Follower:
        """Return the follower of a group of partitions. Create it first, if necessary."""
        assert self._callbacks is not None
        with self._lock:
            if (follower := self._followers.get(group)) is not None:
                return follower
        client = self._link.connect(BLOCK / 1000 + self._timeout)  # not under the lock: it may take a while
        with self._lock:
            if self._closed:
                raise LogError("the log is closed")
            if group not in self._followers:
                self._followers[group] = Follower(client, lambda: self._followed(group), *self._callbacks)
            return self._followers[group]

    def _followed(self, group: int) -> list[Partition]:
        """Return the partitions of a group that are to be followed. Forget those that have not been in use for a while.

        If no partition is left, forget the follower, too. Its thread then ends.
        """
        now = time.monotonic()
        with self._lock:
            for partition in list(self._partitions.values()):
                if not partition.users and partition.is_open and now > partition.left + _LINGER:
                    del self._partitions[partition.number]
            partitions = [partition for partition in self._partitions.values() if partition.is_open]
            if self._link.is_cluster:
                partitions = [partition for partition in partitions if partition.number == group]
            if not partitions:
                self._followers.pop(group, None)
            return partitions
