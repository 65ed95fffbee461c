"""SingleFlight: one slow call at a time, whose result is shared by all threads that wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from ssehub.exceptions import LogError

T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.landed = threading.Event()
        self.result: T
        self.error: BaseException | None = None


class SingleFlight(Generic[T]):
    """Makes one call at a time. Threads that ask for the same call while it runs get its result, or its error.

    So if twenty threads need a server that does not answer, they wait for one timeout together, not for twenty in
    turn. No lock is held while the call runs. Safe to use from any thread.
    Precedent: https://pkg.go.dev/golang.org/x/sync/singleflight
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flight: _Flight[T] | None = None

    def do(self, call: Callable[[], T]) -> T:
        """Call a function, or wait for the call that is running; return the result.

        :raises Exception: the call's exception, in the thread that made the call.
        :raises LogError: in the threads that waited, with the same text; or if the call itself calls this method.
        """
        with self._lock:
            running = self._flight
            if running is None:
                flight: _Flight[T] = _Flight()
                self._flight = flight
        if running is None:
            return self._make(flight, call)
        if running.thread == threading.get_ident():  # the call logs, and the log handler makes the call
            raise LogError("this thread is already making this call")
        running.landed.wait()
        if running.error is not None:
            raise LogError(str(running.error)) from running.error
        return running.result

    def _make(self, flight: _Flight[T], call: Callable[[], T]) -> T:
        try:
            flight.result = call()
            return flight.result
        except BaseException as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                self._flight = None
            flight.landed.set()
