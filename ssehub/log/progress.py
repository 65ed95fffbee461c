"""Progress: lets threads wait until this process has read and delivered entries of a partition.

There are two kinds of waiting threads. A thread that has appended an entry waits for its *echo*: the follower delivers
the entry here, and the thread gets the number of connections. A reader waits until a place is reached. The follower
calls :meth:`Progress.tell` after an entry only if a thread waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping


class Progress:
    """The threads that wait for entries of a partition. Thread-safe."""

    def __init__(self) -> None:
        #: The nonces of entries that this process appends and waits for. The value is the number of connections to
        #: which the entry was addressed; None until the entry was delivered.
        self._echoes: dict[str, int | None] = {}
        #: The number of threads in :meth:`wait_for`.
        self._waiting = 0
        #: Methods take the lock itself, not the condition: the exception of a signal handler could leave it locked.
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        #: Whether :meth:`close` was called.
        self.closed: bool = False

    def expect(self, nonce: str) -> None:
        """Begin to wait for an entry. Call this before the entry is appended."""
        with self._lock:
            self._echoes[nonce] = None

    def await_echo(self, nonce: str, timeout: float) -> int:
        """Wait until an entry is delivered. Return the number of its connections; 0 if it does not come in time."""
        with self._lock:
            self._moved.wait_for(lambda: self._echoes.get(nonce) is not None or self.closed, timeout)
            return self._echoes.get(nonce) or 0

    def forget(self, nonce: str) -> None:
        """Stop waiting for an entry."""
        with self._lock:
            self._echoes.pop(nonce, None)

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> None:
        """Wait until a condition holds, or :meth:`close` is called. It is checked after each call of :meth:`tell`."""
        with self._lock:
            self._waiting += 1
            try:
                self._moved.wait_for(lambda: self.closed or condition(), timeout)
            finally:
                self._waiting -= 1

    def concerns(self, nonce: str) -> bool:
        """Return whether a thread waits for this entry, or for a place."""
        return nonce in self._echoes or self._waiting > 0

    def tell(self, delivered: Mapping[str, int]) -> None:
        """Wake the waiting threads.

        :param delivered: the nonces of entries that were delivered, with the numbers of their connections.
        """
        with self._lock:
            self._echoes.update({nonce: queued for nonce, queued in delivered.items() if nonce in self._echoes})
            self._moved.notify_all()

    def close(self) -> None:
        """Wake all waiting threads for good."""
        with self._lock:
            self.closed = True
            self._moved.notify_all()
