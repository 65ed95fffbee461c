"""Lanes: which lanes of a log this process holds, and who follows them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from ssehub.exceptions import LogError
from ssehub.log.base import Readable
from ssehub.log.packet import Entry, Order
from ssehub.log.position import Position
from ssehub.log.redis.follower import BLOCK, Follower
from ssehub.log.redis.lane import Lane
from ssehub.log.redis.link import Link
from ssehub.log.several import Several

#: Seconds a lane is still followed after the last of its connections has gone: they come back.
_LINGER = 30.0


class Lanes:
    """Hold the lanes that somebody needs, and have them followed. Safe to use from any thread.

    What it raises, where it opens a lane, are the errors of Redis.

    :param link: makes the followers' clients.
    :param make: makes a lane; it may have to connect first.
    :param check: called before a lane is opened; it raises if this process must not.
    :param timeout: seconds a follower waits for an answer.
    """

    def __init__(self, link: Link, make: Callable[[int], Lane], check: Callable[[], None], timeout: float) -> None:
        self._link = link
        self._make = make
        self._check = check
        self._timeout = timeout
        self._lock = threading.Lock()
        #: Followers are made one at a time; that takes a while, and who only looks does not wait for it.
        self._making = threading.Lock()
        self._lanes: dict[int, Lane] = {}
        self._followers: dict[int, Follower] = {}
        self._callbacks: tuple[Callable[[Entry], int], Callable[[Position, Sequence[Order]], None]] | None = None
        self._closed = False

    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Order]], None]) -> None:
        """Say whom to deliver to; see :meth:`ssehub.Log.start`.

        :raises LogError: if that was said already.
        """
        with self._lock:
            if self._callbacks is not None:
                raise LogError("this log belongs to another hub already; give each hub a log of its own")
            self._callbacks = deliver, broken

    def give_up(self) -> None:
        """Take back the start, which has failed."""
        self._callbacks = None

    def held(self, numbers: Iterable[int]) -> list[Lane]:
        """Return those of some lanes that can be read here."""
        return [lane for lane in map(self._lanes.get, numbers) if lane is not None and lane.is_open]

    def hasten(self) -> None:
        """Have what was sent here read at once."""
        for follower in list(self._followers.values()):
            follower.hasten()

    def view(self, numbers: Sequence[int], stack: ExitStack) -> Readable:
        """Open lanes, to be read as one; they are followed until the stack is closed.

        :raises LogError: if nobody has said whom to deliver to, or it is closed.
        """
        if self._callbacks is None:
            raise LogError("the log is not started")
        lanes: dict[int, Readable] = {number: stack.enter_context(self._lane(number)) for number in numbers}
        return lanes[numbers[0]] if len(numbers) == 1 else Several(lanes)

    def close(self) -> None:
        """Follow no more; what is held can still be read. Idempotent."""
        with self._lock:
            self._closed = True
            followers, lanes = list(self._followers.values()), list(self._lanes.values())
        for lane in lanes:
            lane.close()
        for follower in followers:
            follower.close()

    @contextmanager
    def _lane(self, number: int) -> Iterator[Lane]:
        """Have a lane followed as long as the context lasts, and a while longer."""
        made = self._make(number)  # not under the lock: it may have to connect
        with self._lock:
            lane = self._lanes.setdefault(number, made)
            lane.users += 1
        try:
            self._open(lane)
            yield lane
        finally:
            with self._lock:
                lane.users -= 1
                lane.left = time.monotonic()

    def _open(self, lane: Lane) -> None:
        assert self._callbacks is not None
        deliver, broken = self._callbacks
        self._check()
        lane.open(lambda tail: broken(tail, ()))
        group = lane.number if self._link.is_cluster else 0
        with self._making:
            with self._lock:
                follower = self._followers.get(group)
            if follower is None:
                client = self._link.connect(BLOCK / 1000 + self._timeout)
                with self._lock:
                    if self._closed:
                        raise LogError("the log is closed")
                    follower = Follower(client, lambda: self._followed(group), deliver, broken)
                    self._followers[group] = follower
        if not lane.followed.is_set():
            follower.hurry(lane)

    def _followed(self, group: int) -> list[Lane]:
        """Return the lanes of a follower that somebody needs, or did a short while ago, and forget the others.

        One for which none is left ends.
        """
        now = time.monotonic()
        with self._lock:
            for lane in list(self._lanes.values()):
                if not lane.users and lane.is_open and now > lane.left + _LINGER:
                    del self._lanes[lane.number]
            lanes = [lane for lane in self._lanes.values() if lane.is_open]
            if self._link.is_cluster:
                lanes = [lane for lane in lanes if lane.number == group]
            if not lanes:
                self._followers.pop(group, None)
            return lanes
