"""HookPool: runs the hooks of streams without a thread of their own. StreamHooks: runs the hooks of one stream."""

from __future__ import annotations

import collections
import contextlib
import queue
import threading
import time
from collections.abc import Callable

from ssehub.logger import logger
from ssehub.server.connection import Connection

#: Number of hooks that run at the same time, not counting those that hang.
_THREADS = 4
#: Seconds after which a hook counts as hanging. Its thread is then replaced by another.
_HANGS = 10.0
#: Seconds after which an idle thread ends.
_IDLE = 5.0


class HookPool:
    """A few threads, ``ssehub-hooks``, that start when there is a hook to run. Thread-safe.

    A hook that hangs blocks its own stream and one thread, but no other hooks. A warning with its name is logged.
    """

    def __init__(self) -> None:
        #: Guards the waiting hooks of all streams. It is shared to save memory: there may be 10,000 streams.
        self.lock: threading.Lock = threading.Lock()
        self._changed = threading.Condition()
        self._tasks: collections.deque[tuple[str, Callable[[], None]]] = collections.deque()
        #: The task of each thread and its start (``time.monotonic()``); None for an idle thread.
        self._threads: dict[threading.Thread, tuple[str, float] | None] = {}
        self._hanging: set[threading.Thread] = set()
        self._closed = False

    def run(self, what: str, task: Callable[[], None]) -> None:
        """Run a task in one of the threads, soon. Never blocks.

        :param what: the name of the task in log records.
        """
        with self._changed:
            self._tasks.append((what, task))
            self._start_thread()
            self._changed.notify()

    def look(self) -> None:
        """Log a warning for each hook that hangs. Has to be called periodically."""
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
        """Run the remaining tasks, and end the threads. Idempotent.

        :param timeout: seconds to wait for hooks that are still running.
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
        """Start a thread if there are more tasks than idle threads, and fewer threads than allowed."""
        waiting = sum(running is None and thread.is_alive() for thread, running in self._threads.items())
        if len(self._tasks) <= waiting or len(self._threads) - len(self._hanging) >= _THREADS:
            return
        thread = threading.Thread(target=self._work, name="ssehub-hooks", daemon=True)
        self._threads[thread] = None
        try:
            thread.start()
        except RuntimeError:  # no more threads, or interpreter shutdown: other threads or close() run the task
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
        """Wait for a task. None means that the thread has to end."""
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
    """Runs the hooks of one stream that was taken over, one after the other. Thread-safe.

    The hooks run in the stream's own thread, if it has one, or else in the pool.

    :param pool: runs the hooks if the stream has no thread of its own.
    :param own: the queue that the stream's own thread blocks on; None if there is no such thread.
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
        """Run a hook after the earlier hooks of the stream have ended. Never blocks.

        :param what: the name of the hook in log records.
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
        """Note that the stream has ended and that no more hooks follow. Never blocks."""
        with self._pool.lock:
            if self._own is not None:
                self._own.put(None)

    def serve(self) -> None:
        """Run the hooks in this thread, the stream's own, until the stream has ended.

        If the thread is interrupted, because the server ends its greenlet, the pool runs the remaining hooks.
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
        """Run the waiting hooks in a thread of the pool."""
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
