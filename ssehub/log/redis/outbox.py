"""Outbox: a queue in memory for entries that cannot be sent while Redis is away."""

from __future__ import annotations

import atexit
import collections
import os
import threading
import time
from collections.abc import Callable

from ssehub.background import Background
from ssehub.exceptions import LogError
from ssehub.log.redis.writer import Letter, Undeliverable
from ssehub.logger import logger

#: Seconds between two attempts at the exit of the process, when no more threads can be started.
_LOOK = 0.05


class _Queue:
    """The queue of one group, and the thread that sends its entries, ``ssehub-outbox``."""

    def __init__(self, send_next: Callable[[_Queue], None], is_closed: Callable[[], bool]) -> None:
        self.letters: collections.deque[Letter] = collections.deque()
        self.sender = Background(
            "ssehub-outbox",
            lambda: send_next(self),
            ("Redis is away: messages wait in the outbox", "the outbox sends again"),
            expected=(LogError,),
            is_done=lambda: not self.letters or is_closed(),
        )


class Outbox:
    """Keeps entries in memory while Redis is away, and sends them when it is back.

    Entries belong to groups. On a cluster each partition is a group, because the nodes can fail independently;
    otherwise all entries are in one group. Each group has its own queue and thread. So entries of one group are sent in
    order, and groups do not wait for each other. A thread starts with the first entry of its group, and ends when the
    queue is empty. Safe to use from any thread.

    :param size: the maximum number of entries to hold, in all groups together.
    :param send: makes one attempt to send an entry.
    :param patience: the maximum number of seconds that the exit of the process is delayed until the entries are sent.
    """

    def __init__(self, size: int, send: Callable[[Letter], object], patience: float) -> None:
        self._size = size
        self._patience = patience
        self._send = send
        self._queues: dict[int, _Queue] = {}
        self._count = 0
        self._changed = threading.Condition()
        self._process = os.getpid()
        self._closed = False

    def __len__(self) -> int:
        return self._count

    @property
    def failure(self) -> str | None:
        """Why entries cannot be sent now; None if they can, or if there are no entries."""
        failures = [one.sender.failure for one in list(self._queues.values()) if one.letters]
        return next((str(failure) for failure in failures if failure is not None), None)

    def holds(self, group: int) -> bool:
        """Return whether a group has entries in the outbox."""
        queue = self._queues.get(group)
        return bool(queue and queue.letters)

    def put(self, group: int, letter: Letter) -> None:
        """Add an entry at the end of its group's queue.

        :raises LogError: if the outbox is full, or closed, or no thread can be started to send the entry.
        """
        with self._changed:
            if self._closed or self._count >= self._size:
                why = "closed" if self._closed else f"full: {self._size} messages wait in it"
                raise LogError(f"the message was not accepted: Redis is away, and the outbox is {why}")
            queue = self._queues.get(group)
            if queue is None:
                queue = self._queues[group] = _Queue(self._send_next, lambda: self._closed)
            if not self._count:
                atexit.unregister(self._at_exit)
                atexit.register(self._at_exit)
            queue.letters.append(letter)
            self._count += 1
        try:
            queue.sender.start()
        except RuntimeError as error:
            if self._take_back(queue, letter):
                raise LogError(
                    f"the message was not accepted: Redis is away, and no thread can send it later: {error}"
                ) from error

    def close(self, timeout: float) -> None:
        """Stop accepting entries, and wait until all are sent. Log how many could not be sent.

        :param timeout: the maximum number of seconds to wait.
        """
        deadline = time.monotonic() + timeout
        for queue in list(self._queues.values()):
            try:
                queue.sender.start()
            except RuntimeError:  # at exit, the interpreter starts no more threads
                self._drain(queue, deadline)
        with self._changed:
            self._changed.wait_for(lambda: not self._count, max(0.0, deadline - time.monotonic()))
            was_closed, self._closed = self._closed, True
            lost = self._count
        for queue in self._queues.values():
            queue.sender.end()
        if lost and not was_closed:
            logger.error("%d messages in the outbox were not sent, and are lost", lost)

    def join(self, timeout: float) -> None:
        """Wait until the threads have ended. Call :meth:`close` first.

        :param timeout: the maximum number of seconds to wait for each thread.
        """
        for queue in self._queues.values():
            queue.sender.join(timeout)

    def _at_exit(self) -> None:
        """Close the outbox at the exit of the process, if the application did not close it."""
        if self._count and not self._closed and self._process == os.getpid():
            self.close(self._patience)

    def _take_back(self, queue: _Queue, letter: Letter) -> bool:
        """Remove the entry that was added last. Return False if another thread has sent it or is sending it."""
        with self._changed:
            if not queue.letters or queue.letters[-1] is not letter:
                return False
            queue.letters.pop()
            self._count -= 1
            return True

    def _drain(self, queue: _Queue, deadline: float) -> None:
        """Send the entries of a queue in the calling thread."""
        while queue.letters and time.monotonic() < deadline:
            try:
                self._send_next(queue)
            except LogError:
                time.sleep(_LOOK)

    def _send_next(self, queue: _Queue) -> None:
        """Send the first entry of a queue.

        :raises LogError: if the entry could not be sent, because Redis is away, or rejects it for a reason that may
            pass, such as full memory or a changed password. The entry stays in the queue.
        """
        if not queue.letters or self._closed:
            return
        letter = queue.letters[0]
        try:
            self._send(letter)
        except Undeliverable as error:
            logger.error("a message in the outbox was not sent: %s", error)
        with self._changed:  # removed after it was sent, so that new entries cannot be sent before it
            queue.letters.popleft()
            self._count -= 1
            self._changed.notify_all()
