"""HookPool: runs the hooks of streams that have no thread of their own."""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("ssehub")

#: Hooks that run at a time. Those that hang do not count.
_THREADS = 4
#: Seconds after which a hook is said to hang, and its thread no longer counts.
_HANGS = 10.0
#: Seconds after which a thread that has nothing to do ends.
_IDLE = 5.0


class HookPool:
    """A few threads, ``ssehub-hooks``, that start when there is something to run. Safe to use from any thread.

    A hook that hangs costs its own stream, and a thread, but does not hold up other hooks. It is named in the log.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tasks: collections.deque[tuple[str, Callable[[], None]]] = collections.deque()
        #: What each thread runs and since when (``time.monotonic()``); None for one that waits.
        self._threads: dict[threading.Thread, tuple[str, float] | None] = {}
        self._hanging: set[threading.Thread] = set()
        self._closed = False

    def run(self, what: str, task: Callable[[], None]) -> None:
        """Run a task in one of the threads, soon. Never blocks.

        :param what: what log records call it.
        """
        with self._changed:
            self._tasks.append((what, task))
            self._start_thread()
            self._changed.notify()

    def look(self) -> None:
        """Name the hooks that hang. Call it now and then."""
        now = time.monotonic()
        with self._changed:
            hanging = [
                (thread, running)
                for thread, running in self._threads.items()
                if running is not None and thread not in self._hanging and now - running[1] > _HANGS
            ]
            self._hanging.update(thread for thread, _ in hanging)
            self._start_thread()
        for _, (what, since) in hanging:
            logger.warning("%s has been running for %.0f s: its stream waits for it", what, now - since)

    def close(self, timeout: float) -> None:
        """Run what is left, and end the threads. Idempotent.

        :param timeout: seconds to wait for hooks that still run.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            threads = list(self._threads)
        if not threads:
            self._work()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _start_thread(self) -> None:
        """Start a thread if there are tasks that no thread waits for, and not too many threads."""
        waiting = sum(running is None for running in self._threads.values())
        if len(self._tasks) <= waiting or len(self._threads) - len(self._hanging) >= _THREADS:
            return
        thread = threading.Thread(target=self._work, name="ssehub-hooks", daemon=True)
        self._threads[thread] = None
        try:
            thread.start()
        except RuntimeError:  # no more threads now, or the interpreter ends: other threads take it, or close()
            del self._threads[thread]

    def _work(self) -> None:
        own = threading.current_thread()
        while (task := self._next(own)) is not None:
            try:
                task()
            except BaseException:
                logger.exception("a hook has failed")

    def _next(self, own: threading.Thread) -> Callable[[], None] | None:
        """Wait for a task; None if the thread is to end."""
        with self._changed:
            self._hanging.discard(own)
            if own in self._threads:
                self._threads[own] = None
            if not self._closed:
                self._changed.wait_for(lambda: self._tasks or self._closed, _IDLE)
            if not self._tasks:
                self._threads.pop(own, None)
                return None
            what, task = self._tasks.popleft()
            if own in self._threads:
                self._threads[own] = what, time.monotonic()
            return task
