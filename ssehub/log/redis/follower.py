"""Follower: a thread that reads new entries from streams on Redis. It uses one connection for all streams."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any

import redis
from redis.cluster import RedisCluster

from ssehub.background import Background
from ssehub.log.packet import Command, Entry
from ssehub.log.position import Position
from ssehub.log.redis.link import ERRORS, Client, disconnect
from ssehub.log.redis.partition import PAGE, Partition
from ssehub.log.replica import Broken
from ssehub.logger import logger

#: Milliseconds that a read waits for the next entry. If no entry comes in this time, the end of the stream is checked:
#: a stream that was rolled back may take long to reach the place after which the read waits.
BLOCK = 1000
#: After two reads in quick succession, the next one is delayed by this many seconds, so that it returns several entries
#: at once. This saves time, because a read costs Redis and this process several times as much as an entry. An entry
#: after a pause is not delayed.
_GATHER = 0.002


class Follower:
    """A thread, ``ssehub-redis``, that reads new entries from the streams of some partitions, and delivers them.

    If Redis cannot be reached, the thread tries again until it can.

    :param client: a client for this follower only.
    :param partitions: returns the partitions to follow now. If there are none, the thread ends.
    :param deliver: called with each entry.
    :param broken: called if a stream does not continue where it was last read, because it was lost or rolled back. Its
        arguments are the partition's new end, and the new commands up to it. See :meth:`ssehub.Log.start`.
    """

    def __init__(
        self,
        client: Client,
        partitions: Callable[[], Collection[Partition]],
        deliver: Callable[[Entry], int],
        broken: Callable[[Position, list[Command]], None],
    ) -> None:
        self._client = client
        self._partitions = partitions
        self._deliver = deliver
        self._broken = broken
        #: The partitions whose streams continue where they were last read, and when this was last checked
        #: (``time.monotonic()``).
        self._sound: dict[Partition, float] = {}
        #: The partitions whose streams cannot be read, for example because the key has another type.
        self._bad: set[Partition] = set()
        self._connection_id: int | None = None
        #: When entries were last read (``time.monotonic()``).
        self._taken = 0.0
        self._news = threading.Event()
        self._background = Background(
            "ssehub-redis",
            self._follow,
            ("the log on Redis cannot be followed", "the log on Redis is back"),
            expected=ERRORS,
            on_failure=self._lose,
        )

    def start(self) -> None:
        """Start the thread, unless it is running.

        :raises RuntimeError: if no thread can be started. The next call tries again.
        """
        self._background.start()

    @property
    def failure(self) -> str | None:
        """Why some streams cannot be followed now; None if all are followed."""
        if self._background.failure is not None:
            return str(self._background.failure)
        bad = sorted(partition.key for partition in self._bad.copy())
        return f"cannot read {', '.join(bad)}" if bad else None

    def close(self, timeout: float) -> None:
        """End the thread, and wait for it.

        :param timeout: seconds.
        """
        deadline = time.monotonic() + timeout
        self._background.end()
        self._news.set()
        while True:
            # Wakes the thread if a read blocks it. This is repeated, because the thread may be about to start a read.
            disconnect(self._client)
            if self._background.join(0.05) or time.monotonic() > deadline:
                return

    def hasten(self) -> None:
        """Start the next read at once, because this process has just appended an entry."""
        self._news.set()

    def hurry(self, partition: Partition) -> None:
        """Interrupt the current read, so that a new partition is followed at once. Wait for that, a second at most."""
        self._news.set()
        for _ in range(BLOCK // 10):
            if self._connection_id is None or isinstance(partition.client, RedisCluster):
                return
            try:
                partition.client.client_unblock(self._connection_id)  # on another connection
            except ERRORS:  # the user may lack the permission
                return
            if partition.followed.wait(0.01) or self._background.closed:
                return

    # The methods below run in the thread.

    def _lose(self) -> None:
        """Forget the state of the streams: all of them have to be checked again."""
        self._sound.clear()
        self._connection_id = None

    def _follow(self) -> None:
        """Read the next entries, and deliver them."""
        self._news.clear()
        partitions = self._make_sound()
        if partitions is None:
            self._background.end()
            disconnect(self._client)
            return
        if not partitions:  # none of the streams can be read
            self._news.wait(BLOCK / 1000)
            return
        places: Any = {key: partition.read_to for key, partition in partitions.items()}
        answer: Any = self._client.xread(places, count=PAGE, block=BLOCK)
        if answer:
            self._take(partitions, answer)
            before, self._taken = self._taken, time.monotonic()
            if self._taken - before < 2 * _GATHER:
                self._news.wait(_GATHER)
        self._look_at_the_silent()

    def _make_sound(self) -> dict[str, Partition] | None:
        """Check streams that are new or may be broken. Return the readable ones; None if there are no streams."""
        partitions = self._partitions()
        if not partitions:
            return None
        self._sound = {partition: seen for partition, seen in self._sound.items() if partition in partitions}
        self._bad.intersection_update(partitions)
        for partition in partitions:
            if partition not in self._sound:
                self._resume(partition)
        return {partition.key: partition for partition in self._sound}

    def _resume(self, partition: Partition) -> None:
        try:
            self._know_connection()
            try:
                partition.resume(self._client, self._deliver)
            except Broken:
                partition.begin_anew(self._client, self._broken)
        except redis.ResponseError as error:
            if isinstance(error, redis.exceptions.ClusterError):
                raise
            if partition not in self._bad:
                logger.error("the stream %r cannot be read: %s", partition.key, error)
                self._bad.add(partition)
            return
        self._bad.discard(partition)
        self._sound[partition] = time.monotonic()
        partition.followed.set()

    def _know_connection(self) -> None:
        if self._connection_id is None and not isinstance(self._client, RedisCluster):
            try:
                self._connection_id = self._client.client_id()
            except redis.ResponseError:  # the user lacks the permission
                self._connection_id = -1

    def _take(self, partitions: dict[str, Partition], answer: Any) -> None:
        # redis-py returns a list of pairs, or a dictionary.
        streams = answer if isinstance(answer, list) else [(key, part[0]) for key, part in answer.items()]
        for key, entries in streams:
            partition = partitions[key.decode()]
            try:
                for id, fields in entries:
                    partition.take(id, fields, self._deliver)
                self._sound[partition] = time.monotonic()
            except Broken:
                del self._sound[partition]

    def _look_at_the_silent(self) -> None:
        """Check that the streams that were silent for a while still end with the entry that was read last."""
        now = time.monotonic()
        silent = [partition for partition, seen in self._sound.items() if now > seen + BLOCK / 1000 * 0.9]
        if not silent:
            return
        with self._client.pipeline(transaction=False) as pipe:
            for partition in silent:
                pipe.xrevrange(partition.key, count=1)
            ends: Any = pipe.execute()
        for partition, end in zip(silent, ends, strict=True):
            if end and partition.has_read(end[0]):
                self._sound[partition] = now
            else:
                del self._sound[partition]
