"""FaultyLog: a log in memory that can fail on demand, as a log on a server can."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ssehub.exceptions import LogError
from ssehub.log import Command, Entry, Gap, Interest, MemoryLog, Packet, Page, Place, Position, Receipt


class FaultyLog(MemoryLog):
    """Keeps messages in memory, and fails on demand, to test how an application handles failures.

    The arguments are those of :class:`~ssehub.MemoryLog`. Thread-safe. Initially it does not fail.
    """

    def __init__(self, size: int = 10_000, ttl: float | None = None, zone_size: int | None = None) -> None:
        super().__init__(size, ttl, zone_size)
        self._broken: Callable[[Position, Sequence[Command]], None] | None = None
        self._faults = threading.Condition()
        self._failing = 0
        self._failing_late = 0
        self._away = self._held = False
        self._waiting = 0

    # Methods for tests

    def fail(self, count: int = 1, *, written: bool = False) -> None:
        """Make the next *count* messages fail with a :class:`~ssehub.LogError` for the sender.

        :param written: True to lose only the response: the messages are in the log, and clients get them, but the
            sender cannot know this.
        """
        with self._faults:
            if written:
                self._failing_late = count
            else:
                self._failing = count

    def go_away(self) -> None:
        """Fail all calls until :meth:`come_back`, as a log that cannot be reached.

        Streams that have read everything stay open. A stream that has to read ends, and its client is asked to
        reconnect later.
        """
        with self._faults:
            self._away = True

    def come_back(self) -> None:
        """Serve calls again, with all earlier messages."""
        with self._faults:
            self._away = False

    @contextmanager
    def away(self) -> Iterator[None]:
        """Fail all calls until the end of the ``with`` block."""
        self.go_away()
        try:
            yield
        finally:
            self.come_back()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make senders wait until the end of the ``with`` block, as for a slow network."""
        with self._faults:
            self._held = True
        try:
            yield
        finally:
            self._release()

    def wait_for_senders(self, count: int = 1, timeout: float = 5.0) -> None:
        """Wait until *count* senders wait in :meth:`held`.

        :param timeout: seconds to wait.
        :raises TimeoutError: if there are fewer senders then.
        """
        with self._faults:
            if not self._faults.wait_for(lambda: self._waiting >= count, timeout):
                raise TimeoutError(f"waited {timeout} s for {count} senders, but {self._waiting} are waiting")

    def trim(self) -> None:
        """Drop all entries: a client that reconnects with an earlier id gets a gap, ``trimmed``."""
        with self._lock:
            self.history.clear()
            self._judge_anew()

    def flush(self) -> None:
        """Start over, as after the loss of all data: clients from before get a gap, ``epoch``."""
        with self._lock:
            self._begin_epoch()
            self._judge_anew()

    # Methods for the hub

    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Command]], None]) -> None:
        """Start delivering; see :meth:`ssehub.Log.start`."""
        self._check()
        super().start(deliver, broken)
        self._broken = broken

    def append(self, packet: Packet) -> Receipt:
        """Add a packet, unless a failure is due."""
        with self._faults:
            self._wait()
            self._check()
            if self._failing:
                self._failing -= 1
                raise LogError("the log has not accepted the message: a fault of the test")
            late = self._failing_late > 0
            self._failing_late -= late
        receipt = super().append(packet)
        if late:
            raise LogError("it is not known whether the log has accepted the message: a fault of the test")
        return receipt

    def read(
        self,
        after: Place,
        limit: int,
        interest: Interest | None = None,
        upto: Place | None = None,
        known: Place | None = None,
    ) -> Page:
        """Read after a place; see :meth:`ssehub.log.Readable.read`."""
        self._check()
        return super().read(after, limit, interest, upto, known)

    def locate(self, last_event_id: str) -> Position | Gap:
        """Return the place of an id; see :meth:`ssehub.log.Readable.locate`."""
        self._check()
        return super().locate(last_event_id)

    def close(self, timeout: float | None = None) -> None:
        """Accept no more packets. Threads that wait to send get an error."""
        super().close(timeout)
        self._release()

    def _check(self) -> None:
        if self._away:
            raise LogError("the log cannot be reached: a fault of the test")

    def _wait(self) -> None:
        self._waiting += 1
        self._faults.notify_all()
        try:
            self._faults.wait_for(lambda: not self._held)
        finally:
            self._waiting -= 1

    def _release(self) -> None:
        with self._faults:
            self._held = False
            self._faults.notify_all()

    def _judge_anew(self) -> None:
        # Under the lock, as Log.start requires: nothing is delivered in the meantime.
        if self._broken is not None and self._deliver is not None:
            self._broken(self.history.end, ())
