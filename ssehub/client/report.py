"""Report: the log messages of a client, and the state in its ``repr``."""

from __future__ import annotations

import time

from ssehub.client.responses import reason
from ssehub.logger import logger

#: Seconds between two warnings about a lasting failure.
_RARELY = 300.0


class Report:
    """Logs changes of a client's connection. It belongs to the thread that follows; any thread may read it.

    Without it, a script whose server is down would wait silently. A warning is logged for the first of several
    consecutive failures, then every five minutes, and when the client is connected again.

    :param name: the address of the stream, without secrets.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._warned_at: float | None = None
        self._is_down = False
        #: The state of the connection in a few words.
        self.state: str = "not followed"

    def connecting(self) -> None:
        """Note that an attempt begins."""
        self.state = "connecting"

    def opened(self) -> None:
        """Note that the stream is open."""
        self.state = "connected"
        if self._is_down:
            self._is_down = False
            logger.warning("%s: connected again", self._name)

    def waits(self, error: Exception | None, failures: int, delay: float) -> None:
        """Note that the client waits for the next attempt.

        :param error: the error of the attempt, or None.
        :param failures: the number of consecutive attempts without a message.
        :param delay: seconds until the next attempt.
        """
        why = "the stream ended" if error is None else reason(error)
        self.state = f"waiting {delay:.1f} s to reconnect: {why}"
        now = time.monotonic()
        if failures == 1 or (failures and (self._warned_at is None or now - self._warned_at >= _RARELY)):
            self._warned_at, self._is_down = now, True
            count = "" if failures == 1 else f", {failures} times in a row"
            logger.warning("%s: no stream%s: %s; the next attempt is in %.1f s", self._name, count, why, delay)
