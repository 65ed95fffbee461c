"""SingleFlight: one attempt at something slow, whose result is that of all who wait for it."""

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
    """Makes one call at a time. Threads that want the same while it runs wait for its result, or get its error.

    So twenty threads that ask a server which does not answer wait for one timeout, not for twenty. No lock is held
    while the call runs. Safe to use from any thread. Precedent: https://pkg.go.dev/golang.org/x/sync/singleflight
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flight: _Flight[T] | None = None

    def do(self, call: Callable[[], T]) -> T:
        """Call a function, or wait for a call that is running, and return its result.

        :raises Exception: what the call raises in this thread; for those that waited it is a
            :class:`~ssehub.LogError` with the same text.
        :raises LogError: if the call itself calls this.
        """
        with self._lock:
            running = self._flight
            if running is None:
                flight: _Flight[T] = _Flight()
                self._flight = flight
        if running is None:
            return self._make(flight, call)
        if running.thread == threading.get_ident():  # the call logs, and the log's handler wants the same
            raise LogError("this thread is about to do it")
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
