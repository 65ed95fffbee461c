"""Outbox: what could not be sent waits here, in order, until it can."""

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

#: Seconds between attempts at the end of a process that has no threads any more.
_LOOK = 0.05


class _Queue:
    """The entries for one part of the server, and the thread that sends them, ``ssehub-outbox``."""

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
    """Keeps entries in memory while the server is away, and sends them, in a thread of its own, once it is back.

    Entries are sent in order within a group. Groups do not wait for each other: they are parts of a server that can
    fail by themselves. A thread starts with the first entry and ends with the last. Safe to use from any thread.

    :param size: entries it holds at the most.
    :param send: makes one attempt.
    :param patience: seconds that the end of the process waits for them.
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
        """Why entries cannot be sent now; None if they are sent, or there are none."""
        failures = [one.sender.failure for one in list(self._queues.values()) if one.letters]
        return next((str(failure) for failure in failures if failure is not None), None)

    def holds(self, group: int) -> bool:
        """Return whether entries of a group wait."""
        queue = self._queues.get(group)
        return bool(queue and queue.letters)

    def put(self, group: int, letter: Letter) -> None:
        """Add an entry behind the others of its group.

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
        """Take no more, wait until all has been sent, and log how many were not.

        :param timeout: seconds to wait at the most.
        """
        deadline = time.monotonic() + timeout
        for queue in list(self._queues.values()):
            try:
                queue.sender.start()
            except RuntimeError:  # the interpreter ends: there are no more threads
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
        """Wait for the threads, once it is closed.

        :param timeout: seconds to wait at the most, for each.
        """
        for queue in self._queues.values():
            queue.sender.join(timeout)

    def _at_exit(self) -> None:
        """Do for an application that forgets to close what closing would have done."""
        if self._count and not self._closed and self._process == os.getpid():
            self.close(self._patience)

    def _take_back(self, queue: _Queue, letter: Letter) -> bool:
        """Remove an entry; False if another thread has sent it, or is sending it, meanwhile."""
        with self._changed:
            if not queue.letters or queue.letters[-1] is not letter:
                return False
            queue.letters.pop()
            self._count -= 1
            return True

    def _drain(self, queue: _Queue, deadline: float) -> None:
        """Send what waits in this thread."""
        while queue.letters and time.monotonic() < deadline:
            try:
                self._send_next(queue)
            except LogError:
                time.sleep(_LOOK)

    def _send_next(self, queue: _Queue) -> None:
        """Send the first entry.

        :raises LogError: if it could not be sent, and stays where it is: Redis is away, or refuses it for a reason that
            passes, such as a full memory or a changed password.
        """
        if not queue.letters or self._closed:
            return
        letter = queue.letters[0]
        try:
            self._send(letter)
        except Undeliverable as error:
            logger.error("a message in the outbox was not sent: %s", error)
        with self._changed:  # only now: what is put meanwhile comes behind it
            queue.letters.popleft()
            self._count -= 1
            self._changed.notify_all()
