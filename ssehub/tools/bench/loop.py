"""Loop: an event loop for sockets and timers in one thread, which measures its own lag.

Its lag tells whether the load generator, and not the service, is too slow. ``asyncio`` does not measure it.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable

from ssehub.tools.bench.histogram import Histogram

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
#: Seconds between two measurements of the lag.
_BEAT = 0.01


class Loop:
    """Calls functions when a socket is ready or a time has come, in the thread that calls :meth:`turn`.

    Work that can wait is done while no socket is ready, so that it does not delay data that arrives.

    :ivar idle: does a small part of the work that can wait; returns whether more is left.
    :ivar pressed: returns whether this work must not wait longer.
    :ivar lag: how late the loop was in seconds, measured each hundredth of a second.
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
        """Restart the measurement of the lag and of the processor time."""
        self.lag: Histogram = Histogram()
        self._beat = self._since = time.monotonic()
        self._used = time.thread_time()

    @property
    def load(self) -> float:
        """The share of the time since the last reset in which this thread used a processor."""
        return (time.thread_time() - self._used) / max(time.monotonic() - self._since, 1e-9)

    def watch(self, fd: int, events: int, callback: Callable[[int], object]) -> None:
        """Call a function with the events of a descriptor."""
        self._selector.register(fd, events, callback)

    def change(self, fd: int, events: int, callback: Callable[[int], object]) -> None:
        """Change the events and the function of a watched descriptor."""
        self._selector.modify(fd, events, callback)

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor."""
        self._selector.unregister(fd)

    def call_at(self, moment: float, callback: Callable[[], object]) -> None:
        """Call a function at a time (``time.monotonic()``)."""
        heapq.heappush(self._moments, (moment, next(self._numbers), callback))

    def turn(self, longest: float = 0.05) -> None:
        """Wait for events, and handle all of them.

        :param longest: maximum number of seconds to wait.
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
        """Close the selector."""
        self._selector.close()

    def _look(self) -> None:
        now = time.monotonic()
        late = now - self._beat
        while late >= 0:  # each missed measurement counts
            self.lag.add(late)
            late -= _BEAT
        self._beat = now + _BEAT
        self.call_at(self._beat, self._look)
