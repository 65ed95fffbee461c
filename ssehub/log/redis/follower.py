"""Follower: the thread that reads streams as they grow, with one connection for all of them."""

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
from ssehub.log.redis.partition import PAGE, Broken, Partition
from ssehub.logger import logger

#: Milliseconds a read waits for the next entry. A stream from which nothing has come for so long is looked at: one that
#: was rolled back would leave its readers waiting for a place that it may not reach for long.
BLOCK = 1000
#: Seconds that entries are gathered for when others have just come: to be woken costs the server and us several times
#: what an entry does. What comes after a silence is not delayed.
_GATHER = 0.002


class Follower:
    """Follows streams in a thread, ``ssehub-redis``, and delivers their entries.

    While the server is away it goes on trying.

    :param client: used by this follower only.
    :param partitions: returns what is to be followed now; nothing at all ends the thread.
    :param deliver: called with each entry.
    :param broken: called with the new end of a partition that does not go on from where it was, and the commands in it
        that were not delivered.
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
        #: The partitions that go on from where they are, and when that was last seen (``time.monotonic()``).
        self._sound: dict[Partition, float] = {}
        #: The partitions whose streams cannot be read.
        self._bad: set[Partition] = set()
        self._connection_id: int | None = None
        #: When entries were last taken (``time.monotonic()``).
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
        """Start the thread, unless it runs.

        :raises RuntimeError: if there can be no more threads. The next call tries again.
        """
        self._background.start()

    @property
    def failure(self) -> str | None:
        """Why some of the streams, or all, cannot be followed now; None if all are."""
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
            # Wakes the thread if it is blocked in a read; it may be just about to begin one.
            disconnect(self._client)
            if self._background.join(0.05) or time.monotonic() > deadline:
                return

    def hasten(self) -> None:
        """Read at once, if entries are being gathered: one of this process is among them."""
        self._news.set()

    def hurry(self, partition: Partition) -> None:
        """Follow a new partition at once, instead of after the current read; wait for that a little."""
        self._news.set()
        for _ in range(BLOCK // 10):
            if self._connection_id is None or isinstance(partition.client, RedisCluster):
                return
            try:
                partition.client.client_unblock(self._connection_id)  # through another connection than ours
            except ERRORS:  # it may be forbidden
                return
            if partition.followed.wait(0.01) or self._background.closed:
                return

    # What follows runs in the thread.

    def _lose(self) -> None:
        """Note that nothing is known of the streams any more."""
        self._sound.clear()
        self._connection_id = None

    def _follow(self) -> None:
        """Deliver the entries that come next."""
        self._news.clear()
        partitions = self._make_sound()
        if partitions is None:
            self._background.end()
            disconnect(self._client)
            return
        if not partitions:  # those that there are cannot be read
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
        """See that the partitions go on from where they are, and return them; None if nothing is to be followed."""
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
            except redis.ResponseError:  # forbidden
                self._connection_id = -1

    def _take(self, partitions: dict[str, Partition], answer: Any) -> None:
        # redis-py gives lists of pairs, or a dictionary.
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
        """Ask of the partitions from which nothing has come for a while whether they end where they did."""
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
