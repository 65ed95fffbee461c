"""Outbox: what could not be sent waits here, in order, until it can."""

from __future__ import annotations

import atexit
import collections
import logging
import random
import threading
import time
from collections.abc import Callable

from ssehub.exceptions import LogError
from ssehub.log.redis.writer import Letter, Unreachable

logger = logging.getLogger("ssehub")

#: Seconds between attempts, at the most.
_LONGEST_WAIT = 2.0


class Outbox:
    """Keep entries in memory while the server is away, and send them, in a thread of its own, once it is back.

    Safe to use from any thread. The thread starts with the first entry and ends with the last.

    :param size: entries it holds at the most.
    :param send: makes one attempt.
    :param patience: seconds that the end of the process waits for them.
    """

    def __init__(self, size: int, send: Callable[[Letter], object], patience: float) -> None:
        self._size = size
        self._patience = patience
        self._send = send
        self._letters: collections.deque[Letter] = collections.deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._letters)

    def put(self, letter: Letter) -> None:
        """Add an entry behind the others.

        :raises LogError: if it is full, or closed.
        """
        with self._changed:
            if self._closed or len(self._letters) >= self._size:
                why = "closed" if self._closed else f"full: {self._size} messages wait in it"
                raise LogError(f"the message was not accepted: Redis is away, and the outbox is {why}")
            if not self._letters:
                logger.warning("Redis is away: messages wait in the outbox")
                atexit.unregister(self._at_exit)
                atexit.register(self._at_exit)
            self._letters.append(letter)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ssehub-outbox", daemon=True)
                self._thread.start()

    def close(self, timeout: float) -> None:
        """Take no more, wait until all has been sent, and tell what was not.

        :param timeout: seconds to wait at the most.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._changed.wait_for(lambda: not self._letters, timeout)
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()) + 1.0)
        if self._letters:
            logger.error("%d messages in the outbox were not sent, and are lost", len(self._letters))

    def _at_exit(self) -> None:
        """Do for an application that forgets to close what closing would have done."""
        if self._letters and not self._closed:
            self.close(self._patience)

    def _run(self) -> None:
        failures = 0
        while True:
            with self._changed:
                if failures:
                    wait = random.uniform(0.5, 1.0) * min(0.05 * 2**failures, _LONGEST_WAIT)
                    self._changed.wait_for(lambda: self._closed, wait)
                if self._closed or not self._letters:
                    self._thread = None
                    return
                letter = self._letters[0]
            try:
                self._send(letter)
            except Unreachable:
                failures += 1
                continue
            except LogError as error:
                logger.error("a message in the outbox was not sent: %s", error)
            failures = 0
            with self._changed:  # only now: whoever comes meanwhile stands behind it
                self._letters.popleft()
                self._changed.notify_all()
