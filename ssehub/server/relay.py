"""Relay: whose turn it is to wake.

A thousand threads that all wake at the same time fight for the interpreter instead of working. So connections that
something is due to stand in line, only the first of them has a turn, and a thread that wakes passes its turn on before
it does anything else. Whatever arrives while a connection stands in line leaves in one write.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import queue

#: Turns handed out at a time. Measured with a thousand threads: with one a wake costs 60 microseconds of processor,
#: with 2 to 8 it costs 90, because whoever is awake waits for the interpreter anyway.
TURNS = 1


class Sleeper(Protocol):
    """What stands in line: somebody blocked on a queue."""

    turn: queue.Queue[None]


class Relay:
    """Wake sleepers in the order they came.

    Safe to use from any thread; never blocks. Only a sleeper that is blocked on its queue, or will be next, may stand
    in line: one that is busy would keep its turn from the others.

    :param turns: how many may be on their way at a time.
    """

    def __init__(self, turns: int = TURNS) -> None:
        self._lock = threading.Lock()
        self._line: collections.deque[Sleeper] = collections.deque()
        self._free = turns

    def enlist(self, sleepers: Sequence[Sleeper]) -> None:
        """Put sleepers at the end of the line, and hand out the turns that are free."""
        if not sleepers:
            return
        with self._lock:
            self._line.extend(sleepers)
            while self._free and self._line:
                self._free -= 1
                self._line.popleft().turn.put(None)

    def pass_on(self) -> None:
        """Give the turn one has received to the next in line. Call it first thing after waking."""
        with self._lock:
            if self._line:
                self._line.popleft().turn.put(None)
            else:
                self._free += 1

    def withdraw(self, sleeper: Sleeper) -> None:
        """Take a sleeper that stands in line out of it, or pass on the turn it was given meanwhile."""
        with self._lock:
            if sleeper in self._line:
                self._line.remove(sleeper)
                return
        self.pass_on()
