"""FaultyLog: a log in memory that fails as one on a server can, when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ssehub.exceptions import LogError
from ssehub.log import Command, Entry, Gap, Interest, MemoryLog, Packet, Page, Place, Position, Receipt


class FaultyLog(MemoryLog):
    """Keep messages in memory, and fail on demand, so that an application's answer to it can be tested.

    Its arguments are those of :class:`~ssehub.MemoryLog`. Safe to use from any thread. It begins faultless.
    """

    def __init__(self, size: int = 10_000, ttl: float | None = None, zone_size: int | None = None) -> None:
        super().__init__(size, ttl, zone_size)
        self._broken: Callable[[Position, Sequence[Command]], None] | None = None
        self._faults = threading.Condition()
        self._failing = 0
        self._failing_late = 0
        self._away = self._held = False
        self._waiting = 0

    # What a test says

    def fail(self, count: int = 1, *, written: bool = False) -> None:
        """Have the next so many messages end in :class:`~ssehub.LogError` for their sender.

        :param written: True for those whose answer was lost: they are in the log, and clients get them, but the sender
            cannot know.
        """
        with self._faults:
            if written:
                self._failing_late = count
            else:
                self._failing = count

    def go_away(self) -> None:
        """Be out of reach until :meth:`come_back`: nothing is accepted, and nothing is read.

        Streams that are level stay open. One that has to read ends, and its client is sent away until the log is back.
        """
        with self._faults:
            self._away = True

    def come_back(self) -> None:
        """Be there again, with everything that was there."""
        with self._faults:
            self._away = False

    @contextmanager
    def away(self) -> Iterator[None]:
        """Be out of reach as long as the block lasts."""
        self.go_away()
        try:
            yield
        finally:
            self.come_back()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have senders wait as long as the block lasts, as for a slow network; then they are served."""
        with self._faults:
            self._held = True
        try:
            yield
        finally:
            self._release()

    def wait_for_senders(self, count: int = 1, timeout: float = 5.0) -> None:
        """Wait until so many senders wait, within :meth:`held`.

        :param timeout: seconds to wait.
        :raises TimeoutError: if they do not come.
        """
        with self._faults:
            if not self._faults.wait_for(lambda: self._waiting >= count, timeout):
                raise TimeoutError(f"waited {timeout} s for {count} senders, but {self._waiting} wait")

    def trim(self) -> None:
        """Let go of every entry: a client that comes back from before is told a gap, ``trimmed``."""
        with self._lock:
            self.history.clear()
            self._judge_anew()

    def flush(self) -> None:
        """Begin anew, as after the loss of everything: whoever was there before is told a gap, ``epoch``."""
        with self._lock:
            self._begin_epoch()
            self._judge_anew()

    # What the hub asks

    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Command]], None]) -> None:
        """Begin to deliver; see :meth:`ssehub.Log.start`."""
        self._check()
        super().start(deliver, broken)
        self._broken = broken

    def append(self, packet: Packet) -> Receipt:
        """Add a packet, if no fault is in the way."""
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
        """Read on from a position; see :meth:`ssehub.log.Readable.read`."""
        self._check()
        return super().read(after, limit, interest, upto, known)

    def locate(self, last_event_id: str) -> Position | Gap:
        """Find the place an id names; see :meth:`ssehub.log.Readable.locate`."""
        self._check()
        return super().locate(last_event_id)

    def close(self, timeout: float | None = None) -> None:
        """Accept no more packets; threads that wait to send get an error."""
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
        # Under the lock, as the contract of Log.start wants it: nothing is delivered meanwhile.
        if self._broken is not None and self._deliver is not None:
            self._broken(self.history.end, ())
