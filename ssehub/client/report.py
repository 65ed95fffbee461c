"""Report: what a client writes to the log, and what its ``repr`` shows."""

from __future__ import annotations

import time

from ssehub.client.responses import reason
from ssehub.logger import logger

#: Seconds between two warnings while nothing changes.
_RARELY = 300.0


class Report:
    """Note what becomes of a client's connections. It belongs to the thread that follows; any thread may read it.

    A script whose server is away would otherwise wait without a word. The first failure in a row is a warning, then one
    in five minutes, and the connection after it is one.

    :param name: the stream's address, as it may be shown.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._warned_at: float | None = None
        self._is_down = False
        #: The state of the connection, in a few words.
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
        """Note that there is a wait until the next attempt.

        :param error: what failed, or None.
        :param failures: attempts in a row without a message.
        :param delay: seconds until the next attempt.
        """
        why = "the stream ended" if error is None else reason(error)
        self.state = f"waiting {delay:.1f} s to connect again: {why}"
        now = time.monotonic()
        if failures == 1 or (failures and (self._warned_at is None or now - self._warned_at >= _RARELY)):
            self._warned_at, self._is_down = now, True
            count = "" if failures == 1 else f", {failures} times in a row"
            logger.warning("%s: no stream%s: %s; the next attempt is in %.1f s", self._name, count, why, delay)
