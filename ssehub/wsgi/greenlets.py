"""Greenlets: whether threads are greenlets, and the switch to others from a greenlet that has much to do."""

from __future__ import annotations

import sys
import time

#: Number of streams that are served before other greenlets may run.
SERVED = 256


def uses_greenlets() -> bool:
    """Return whether gevent has replaced the threads of this process by greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


class GreenletSwitch:
    """Counts the streams that a greenlet has served, and lets other greenlets run from time to time.

    Threads need no switch: the interpreter makes them take turns.
    """

    def __init__(self) -> None:
        self._greenlets = uses_greenlets()
        self._served = 0

    def served(self, streams: int) -> None:
        """Count served streams. Other greenlets run after every 256."""
        self._served += streams
        if self._served >= SERVED:
            self._served = 0
            if self._greenlets:
                time.sleep(0)
