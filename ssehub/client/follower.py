"""Follower: the thread that follows a client's stream, and its process. There is at most one at a time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


class Follower:
    """Which thread follows a client, if any. Thread-safe, also in signal handlers."""

    def __init__(self) -> None:
        # Reentrant, because a signal handler may run in the thread that holds the lock.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._is_following = False
        self._idle = threading.Event()
        self._idle.set()
        #: The thread that :meth:`start` has started.
        self._started: threading.Thread | None = None
        #: The process in which the client is followed: a fork copies the client, but not its thread.
        self._process: int | None = None

    @property
    def place(self) -> str | None:
        """Where the client is followed, if that is another process; None if not."""
        return f"followed in process {self._process}" if self.is_elsewhere else None

    @property
    def is_following(self) -> bool:
        """Whether a thread follows."""
        return self._is_following

    @property
    def is_free(self) -> bool:
        """Whether no thread follows, or is about to."""
        with self._lock:
            return self._thread is None

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process was forked from the one in which the client is followed."""
        return self._process is not None and self._process != os.getpid()

    def check_process(self) -> None:
        """Raise an error in a process that was forked from the one in which the client is followed.

        :raises RuntimeError: in such a process.
        """
        if self.is_elsewhere:
            raise RuntimeError(
                f"this client is followed in process {self._process}, from which this one was forked; make another here"
            )

    def start(self, target: Callable[[], None]) -> None:
        """Start a daemon thread that will follow.

        :param target: runs in the thread, and calls :meth:`begin`.
        :raises RuntimeError: if a thread was started before, a thread already follows, or no thread can be started.
        """
        self.check_process()
        with self._lock:
            if self._started is not None:
                raise RuntimeError("this client was started before")
            if self._thread is not None:
                raise RuntimeError(f"this client is already being followed, in {self._thread.name}")
            # A daemon thread, because a name lookup cannot be aborted and would block the exit of the interpreter.
            thread = threading.Thread(target=target, name="ssehub-client", daemon=True)
            self._thread = thread
            try:
                thread.start()
            except BaseException:  # too many threads: another call may succeed
                self._thread = None
                raise
            self._started, self._process = thread, os.getpid()

    def begin(self) -> None:
        """Note that this thread follows from now on.

        :raises RuntimeError: if another follows already, or if the client is followed in the process that this one was
            forked from.
        """
        self.check_process()
        with self._lock:
            if self._is_following or self._thread not in (None, threading.current_thread()):
                name = self._thread.name if self._thread else "another thread"
                raise RuntimeError(f"this client is already being followed, in {name}")
            self._thread = threading.current_thread()
            self._is_following = True
            self._process = os.getpid()
            self._idle.clear()

    def end(self, last: Callable[[], None]) -> None:
        """Note that this thread no longer follows.

        :param last: called then, before :meth:`join` returns in other threads.
        """
        with self._lock:
            self._thread = self._process = None
            self._is_following = False
        last()
        self._idle.set()

    def join(self, timeout: float | None) -> bool:
        """Wait until no thread follows. The thread that follows does not wait for itself.

        :param timeout: maximum number of seconds to wait. None does not wait.
        :returns: whether no thread follows.
        """
        if timeout is not None and threading.current_thread() not in (self._thread, self._started):
            deadline = time.monotonic() + timeout
            self._idle.wait(timeout)
            if self._started is not None:
                self._started.join(max(0.0, deadline - time.monotonic()))
        return self._idle.is_set() and not (self._started and self._started.is_alive())
