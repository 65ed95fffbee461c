"""Background: a thread that calls a function in a loop. Exceptions do not end it, and other threads can see them."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable

from ssehub.backoff import Backoff
from ssehub.logger import logger

#: The wait between two attempts: 50 milliseconds at first, two seconds at most.
_BACKOFF = Backoff(initial=0.05, maximum=2.0)


class Background:
    """A thread that calls a function again and again.

    If the function raises an exception, it is called again after a wait. Of several exceptions in a row, only the first
    is logged. If the thread itself is killed, as ``gevent.killall`` does, a new thread replaces it. Safe to use from
    any thread.

    :param name: the thread's name.
    :param work: the function. If it returns, the call was a success.
    :param trouble: two log messages: one for when calls begin to fail, one for when they succeed again.
    :param expected: exceptions that are logged without a traceback.
    :param is_done: returns whether the thread may end, because there is nothing to do. It is called under the lock that
        :meth:`start` takes. So no work is missed if other threads first queue their work and then call :meth:`start`.
    :param on_failure: called in the thread after each exception.

    :ivar failure: the exception that the last call raised; None if it succeeded.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        trouble: tuple[str, str],
        *,
        expected: tuple[type[BaseException], ...] = (),
        is_done: Callable[[], bool] = lambda: False,
        on_failure: Callable[[], object] = lambda: None,
    ) -> None:
        self.failure: BaseException | None = None
        self._name = name
        self._work = work
        self._trouble, self._relief = trouble
        self._expected = expected
        self._is_done = is_done
        self._on_failure = on_failure
        self._failures = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._runs = False

    @property
    def closed(self) -> bool:
        """Whether :meth:`end` was called."""
        return self._closed.is_set()

    def start(self) -> None:
        """Start the thread, unless it is running, or :meth:`end` was called.

        :raises RuntimeError: if no thread can be started. The next call tries again.
        """
        try:
            with self._lock:
                if not self._runs and not self.closed:
                    thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    thread.start()
                    self._thread, self._runs = thread, True
        except RuntimeError as error:
            _not_running.add(self)
            self._fail(error)
            raise
        _not_running.discard(self)

    def end(self) -> None:
        """End the thread after the current call. Returns at once."""
        self._closed.set()

    def wait(self, seconds: float) -> bool:
        """Block until the time is over, or until :meth:`end` is called; return True in the second case."""
        return self._closed.wait(seconds)

    def join(self, timeout: float) -> bool:
        """Wait until the thread has ended. Return True if it has ended, or if the caller is this thread.

        :param timeout: seconds.
        """
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    # The methods below run in the thread.

    def _run(self) -> None:
        try:
            while self._goes_on():
                self._call()
        except BaseException as error:  # the thread is being killed; start another
            with self._lock:
                self._runs = False
            if not self.closed:
                self._fail(error)
                with contextlib.suppress(RuntimeError):  # `start_missing` tries again
                    self.start()

    def _goes_on(self) -> bool:
        with self._lock:
            if self.closed or self._is_done():
                self._runs = False
                return False
            return True

    def _call(self) -> None:
        try:
            self._work()
        except Exception as error:
            if not self.closed:
                self._fail(error)
                self.wait(_BACKOFF.delay(self._failures, 0.0))
        else:
            start_missing()
            if self.failure is not None:
                self.failure, self._failures = None, 0
                logger.warning("%s", self._relief)

    def _fail(self, error: BaseException) -> None:
        is_first = self.failure is None
        self.failure = error
        self._failures += 1
        if is_first:
            unforeseen = None if isinstance(error, self._expected) else error
            logger.warning("%s: %s", self._trouble, error or type(error).__name__, exc_info=unforeseen)
        with contextlib.suppress(Exception):
            self._on_failure()


#: Objects that should run, but whose thread could not be started.
_not_running: weakref.WeakSet[Background] = weakref.WeakSet()


def start_missing() -> None:
    """Start the threads that could not be started before. Other threads of ssehub call this from time to time."""
    for one in list(_not_running) if _not_running else ():
        with contextlib.suppress(RuntimeError):
            one.start()


if hasattr(os, "register_at_fork"):  # in a child, these objects are the parent's
    os.register_at_fork(after_in_child=_not_running.clear)
