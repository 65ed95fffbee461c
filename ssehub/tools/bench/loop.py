"""Loop: sockets that are ready and moments that have come, in one thread; and how late it was for them."""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable

from ssehub.tools.bench.histogram import Histogram

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
#: Seconds between two looks at how late the loop is.
_BEAT = 0.01


class Loop:
    """Call back when a socket is ready or a moment has come. Everything happens in the thread that calls :meth:`turn`.

    Work that can wait is done while no socket is ready: so it delays nothing that arrives.

    :ivar idle: does a little of that work; tells whether some is left.
    :ivar pressed: tells whether that work may wait no longer.
    :ivar lag: how late the loop was, in seconds: a moment each hundredth of a second.
    """

    def __init__(self) -> None:
        self.idle: Callable[[], bool] = lambda: False
        self.pressed: Callable[[], bool] = lambda: False
        self._selector = selectors.DefaultSelector()
        self._moments: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._busy = False
        self.reset()
        self.call_at(self._beat, self._look)

    def reset(self) -> None:
        """Count the lag and the processor's time from now on."""
        self.lag: Histogram = Histogram()
        self._beat = self._since = time.monotonic()
        self._used = time.thread_time()

    @property
    def load(self) -> float:
        """The share of the time since the last reset in which this thread had a processor."""
        return (time.thread_time() - self._used) / max(time.monotonic() - self._since, 1e-9)

    def watch(self, fd: int, events: int, callback: Callable[[int], object]) -> None:
        """Call back with what a descriptor is ready for."""
        self._selector.register(fd, events, callback)

    def change(self, fd: int, events: int, callback: Callable[[int], object]) -> None:
        """Watch a descriptor for something else from now on."""
        self._selector.modify(fd, events, callback)

    def forget(self, fd: int) -> None:
        """Watch a descriptor no more."""
        self._selector.unregister(fd)

    def call_at(self, moment: float, callback: Callable[[], object]) -> None:
        """Call back once a moment of ``time.monotonic()`` has come."""
        heapq.heappush(self._moments, (moment, next(self._numbers), callback))

    def turn(self, longest: float = 0.05) -> None:
        """Wait for something, and handle all that is there.

        :param longest: seconds to wait at the most.
        """
        wait = 0.0 if self._busy else min(longest, max(0.0, self._moments[0][0] - time.monotonic()))
        ready = self._selector.select(wait)
        for key, events in ready:
            key.data(events)
        if ready:
            self._busy = True
        now = time.monotonic()
        while self._moments and self._moments[0][0] <= now:
            heapq.heappop(self._moments)[2]()
        if not ready or self.pressed():
            self._busy = self.idle()

    def close(self) -> None:
        """Let go of the selector."""
        self._selector.close()

    def _look(self) -> None:
        now = time.monotonic()
        late = now - self._beat
        while late >= 0:  # each moment that was missed is one
            self.lag.add(late)
            late -= _BEAT
        self._beat = now + _BEAT
        self.call_at(self._beat, self._look)
