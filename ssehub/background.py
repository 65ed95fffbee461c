"""Background: a thread that others rely on. No exception ends it, and whoever relies on it can see that it fails."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable

from ssehub.backoff import Backoff
from ssehub.logger import logger

#: Between attempts: 50 milliseconds at first, two seconds at most.
_BACKOFF = Backoff(initial=0.05, maximum=2.0)


class Background:
    """Calls a function in a thread of its own, again and again.

    If the function raises an exception, that is logged once, and it is called again after a while, for ever. If the
    thread itself is ended, as ``gevent.killall`` does, another takes its place. Safe to use from any thread.

    :param name: the thread's name.
    :param work: called in the thread. Returning means that it works.
    :param trouble: what log records say when it begins to fail, and when it works again.
    :param expected: the exceptions that can happen: they are logged without a traceback.
    :param is_done: whether the thread may end, because there is nothing to do. Called under a lock, so that
        :meth:`start` cannot come too early: whoever has work notes it first and then calls :meth:`start`.
    :param on_failure: called in the thread after each exception.

    :ivar failure: the exception with which it failed last; None while it works.
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
        """Whether it is to end, or has ended."""
        return self._closed.is_set()

    def start(self) -> None:
        """Start the thread, unless it runs, or this is closed.

        :raises RuntimeError: if there can be no more threads. The next call tries again.
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
        """Have the thread end after the current call. Returns at once."""
        self._closed.set()

    def wait(self, seconds: float) -> bool:
        """Block for a while, or until it is to end; then return True at once."""
        return self._closed.wait(seconds)

    def join(self, timeout: float) -> bool:
        """Wait until the thread has ended; True if it has, or if it is the caller.

        :param timeout: seconds.
        """
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            while self._goes_on():
                self._call()
        except BaseException as error:  # something ends this thread; those who rely on it need another
            with self._lock:
                self._runs = False
            if not self.closed:
                self._fail(error)
                with contextlib.suppress(RuntimeError):  # the others start it as soon as there are threads again
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


#: Those that should run, and whose thread could not be started.
_not_running: weakref.WeakSet[Background] = weakref.WeakSet()


def start_missing() -> None:
    """Start threads that could not be started before. Threads that run call this now and then."""
    for one in list(_not_running) if _not_running else ():
        with contextlib.suppress(RuntimeError):
            one.start()


if hasattr(os, "register_at_fork"):  # in a child they are the parent's
    os.register_at_fork(after_in_child=_not_running.clear)
