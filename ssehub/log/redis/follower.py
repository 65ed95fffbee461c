"""Follower: the thread that follows a stream, and what of it this process holds."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Any

import redis
from redis.exceptions import RedisError

from ssehub.log.packet import Entry
from ssehub.log.position import Position
from ssehub.log.redis.stream import TOP, entry_of, follows, position_of
from ssehub.log.ring import Ring

logger = logging.getLogger("ssehub")

#: Milliseconds a read waits for the next entry; then the log's end is looked at: a log that was rolled back would leave
#: a reader waiting for a place it may not reach for long.
BLOCK = 1000
#: Entries fetched at a time.
_PAGE = 1000
#: Seconds between attempts to reach a server, at the most.
_LONGEST_WAIT = 2.0


class Broken(Exception):
    """What the stream holds does not follow what was read from it."""


class Follower:
    """Follow a stream in a thread, ``ssehub-redis``, and keep what it holds in memory."""

    def __init__(
        self,
        client: redis.Redis,
        key: str,
        size: int,
        deliver: Callable[[Entry], int],
        broken: Callable[[Position], None],
    ) -> None:
        self._client = client
        self._key = key
        self._size = size
        self._deliver = deliver
        self._broken = broken
        self._top = client.register_script(TOP)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ssehub-redis", daemon=True)
        #: How often the stream had to be read anew, because it did not go on from where it was.
        self.renewals = 0
        #: Of the appends that wait for their entry: its nonce, and how many connections it was due to.
        self._echoes: dict[str, int | None] = {}
        #: How many wait for the tail to move.
        self._waiting = 0
        self._moved = threading.Condition()

    def load(self) -> None:
        """Read all that the stream holds."""
        self.ring = self._whole()
        self.delivered = self.ring.tail

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, and wait for it."""
        self._closed.set()
        with self._moved:
            self._moved.notify_all()
        while self._thread.is_alive() and threading.current_thread() is not self._thread:
            # Wakes the thread if it is blocked in a read; it may be just about to begin one.
            self._client.connection_pool.disconnect()
            self._thread.join(0.05)
        self._client.connection_pool.disconnect()

    def expect(self, nonce: str) -> None:
        """Note that an entry of this process is about to be sent."""
        with self._moved:
            self._echoes[nonce] = None

    def await_echo(self, nonce: str, timeout: float) -> int:
        """Wait until an entry was delivered here; return to how many connections it was due, 0 if it did not come."""
        with self._moved:
            self._moved.wait_for(lambda: self._echoes.get(nonce) is not None or self._closed.is_set(), timeout)
            return self._echoes.get(nonce) or 0

    def await_end(self, end: Position, renewals: int, timeout: float) -> None:
        """Wait until the place where the stream ended is one that is held here.

        :param renewals: :attr:`renewals` before it was looked where it ends.
        :raises TimeoutError: if that takes too long.
        """
        with self._moved:
            self._waiting += 1
            try:
                there = self._moved.wait_for(
                    lambda: self.ring.holds(end) or self.renewals != renewals or self._closed.is_set(), timeout
                )
            finally:
                self._waiting -= 1
        if not there:
            raise TimeoutError(f"the follower has not come to {end} in {timeout} s")

    def forget(self, nonce: str) -> None:
        """Expect an entry no more."""
        with self._moved:
            self._echoes.pop(nonce, None)

    def _run(self) -> None:
        failures = 0
        while not self._closed.is_set():
            try:
                self._catch_up()
                if failures:
                    logger.warning("the log on Redis is back")
                failures = 0
                self._follow()
            except Broken:
                continue
            except Exception as error:  # whatever it is, the thread goes on: nobody would start another
                if self._closed.is_set():
                    return
                failures += 1
                if failures == 1:
                    unforeseen = not isinstance(error, RedisError | OSError)
                    logger.warning("the log on Redis cannot be followed: %r", error, exc_info=unforeseen)
                self._closed.wait(random.uniform(0.5, 1.0) * min(0.05 * 2**failures, _LONGEST_WAIT))

    def _follow(self) -> None:
        """Deliver entries as they come, until something is wrong."""
        while not self._closed.is_set():
            tail = self.ring.tail
            answer: Any = self._client.xread({self._key: f"{tail.epoch}-{tail.offset}"}, count=_PAGE, block=BLOCK)
            entries = (answer[0][1] if isinstance(answer, list) else next(iter(answer.values()))[0]) if answer else []
            if not entries and self._end() != tail:
                raise Broken
            for id, fields in entries:
                self._take(id, fields)

    def _catch_up(self) -> None:
        """Take what has come since, or, where the stream does not go on from here, all it holds."""
        try:
            tail = self.ring.tail
            entries: Any = self._client.xrange(self._key, min=f"{tail.epoch}-{tail.offset}", count=_PAGE)
            if entries and position_of(entries[0][0], entries[0][1].get(b"h"))[0] == tail:
                del entries[0]
            elif not entries:
                raise Broken
            for id, fields in entries:
                self._take(id, fields)
        except Broken:
            self.ring = self._whole()
            self.delivered = self.ring.tail
            self.renewals += 1
            self._broken(self.ring.tail)
            with self._moved:
                self._moved.notify_all()

    def _take(self, id: bytes, fields: dict[bytes, bytes]) -> None:
        """Deliver the entry that comes next; anything else is not that."""
        if not follows(*position_of(id, fields.get(b"h")), self.ring.tail):
            raise Broken
        entry = entry_of(id, fields)
        self.ring.keep(entry)
        queued = self._deliver(entry)
        self.delivered = entry.position
        is_own = entry.position.nonce in self._echoes
        if is_own or self._waiting:
            with self._moved:
                if is_own:
                    self._echoes[entry.position.nonce] = queued
                self._moved.notify_all()

    def _end(self) -> Position:
        id, fields = self._top(keys=[self._key])
        return position_of(id, fields[1])[0]

    def _whole(self) -> Ring:
        """Read the whole stream, begun where there is none, and hold what at its end is of one piece."""
        ring = Ring(self._size, None, self._end())
        after = "-"
        while True:
            page: Any = self._client.xrange(self._key, min=after, count=_PAGE)
            for id, fields in page:
                position, previous = position_of(id, fields.get(b"h"))
                if previous is None or not position.offset:
                    ring = Ring(self._size, None, position)
                    continue
                if not follows(position, previous, ring.tail):
                    ring = Ring(self._size, None, Position(position.epoch, position.offset - 1, previous))
                ring.keep(entry_of(id, fields))
            if len(page) < _PAGE:
                return ring
            after = f"({page[-1][0].decode()}"
