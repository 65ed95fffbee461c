"""HookPool: runs the hooks of streams that have no thread of their own. StreamHooks: runs those of one stream."""

from __future__ import annotations

import collections
import contextlib
import queue
import threading
import time
from collections.abc import Callable

from ssehub.logger import logger
from ssehub.server.connection import Connection

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
        #: Guards what each stream has handed in; one for all, because ten thousand locks are memory.
        self.lock: threading.Lock = threading.Lock()
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
        waiting = sum(running is None and thread.is_alive() for thread, running in self._threads.items())
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
        try:
            while (task := self._next(own)) is not None:
                try:
                    task()
                except BaseException:
                    logger.exception("a hook has failed")
        finally:  # also if something ends the thread while it waits
            with self._changed:
                self._threads.pop(own, None)
                self._hanging.discard(own)
                self._start_thread()

    def _next(self, own: threading.Thread) -> Callable[[], None] | None:
        """Wait for a task; None if the thread is to end."""
        with self._changed:
            self._hanging.discard(own)
            if own in self._threads:
                self._threads[own] = None
            if not self._closed:
                self._changed.wait_for(lambda: self._tasks or self._closed, _IDLE)
            if not self._tasks:
                self._threads.pop(own, None)  # under the lock under which tasks come
                return None
            what, task = self._tasks.popleft()
            if own in self._threads:
                self._threads[own] = what, time.monotonic()
            return task


class StreamHooks:
    """Runs the hooks of one stream that was taken over, one after the other. Any thread may hand one in.

    They run in the stream's own thread, if it has one, or else in the pool.

    :param pool: for a stream without a thread of its own.
    :param own: what the stream's own thread blocks on; None if there is no such thread.
    """

    __slots__ = ("_connection", "_is_running", "_own", "_pool", "_tasks")

    def __init__(
        self, pool: HookPool, connection: Connection, own: queue.Queue[Callable[[], None] | None] | None
    ) -> None:
        self._pool = pool
        self._connection = connection
        self._own = own
        self._tasks: collections.deque[tuple[str, Callable[[], None]]] | None = None
        self._is_running = False

    def run(self, what: str, task: Callable[[], None]) -> None:
        """Run a hook once those before it have ended. Never blocks.

        :param what: what log records call it.
        """
        with self._pool.lock:
            if self._own is not None:
                self._own.put(task)
                return
            self._tasks = collections.deque() if self._tasks is None else self._tasks
            self._tasks.append((what, task))
            if self._is_running:
                return
            self._is_running = True
        self._pool.run(what, self._work)

    def end(self) -> None:
        """Note that the stream has ended, and that no hook comes after those handed in. Never blocks."""
        with self._pool.lock:
            if self._own is not None:
                self._own.put(None)

    def serve(self) -> None:
        """Run the hooks in this thread, the stream's own, until the stream has ended.

        If it is interrupted, because the server ends its greenlet, the pool runs what is still to come.
        """
        assert self._own is not None
        own = self._own
        try:
            while (task := own.get()) is not None:
                task()
        except BaseException:
            self._connection.close("error")
            with self._pool.lock:
                self._own = None
            self._connection.thread = 0
            with contextlib.suppress(queue.Empty):
                while (task := own.get_nowait()) is not None:
                    self.run(f"a hook of {self._connection!r}", task)
            raise

    def _work(self) -> None:
        """Run the hooks that wait, in a thread of the pool."""
        while True:
            with self._pool.lock:
                if not self._tasks:
                    self._is_running = False
                    return
                _, task = self._tasks.popleft()
            self._connection.thread = threading.get_ident()
            try:
                task()
            except BaseException:
                logger.exception("a hook has failed")
            finally:
                self._connection.thread = 0
