"""Patience: whether to try again after an attempt, and when."""

from __future__ import annotations

import time

import requests

from ssehub.client.refusal import StreamRefused, retry_after
from ssehub.client.settings import Settings
from ssehub.exceptions import EventTooLarge

#: requests' errors about what it is asked to send.
_FUTILE = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidHeader,
)


class Patience:
    """Judge attempts one after the other, and count those that fail. It belongs to the thread that follows.

    :param settings: the client's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reconnection_time = settings.reconnect_delay
        self._failures = 0
        self._good_at = time.monotonic()

    def learn(self, reconnection_time: int | None) -> None:
        """Take over the reconnection time a stream has asked for, in milliseconds; None if it has not."""
        if reconnection_time is not None:
            self._reconnection_time = reconnection_time / 1000

    def delay(self, good: bool, error: Exception | None) -> float:
        """Return the seconds to wait before the next attempt.

        :param good: whether the connection was worth having.
        :param error: what ended it; None for an end in order, which is a failure if the connection was not good.
        :raises Exception: the error, if there is to be no other attempt.
        """
        if good:
            self._failures = 0
            self._good_at = time.monotonic()
        else:
            self._failures += 1
        delay = self._settings.backoff.delay(self._failures, self._reconnection_time)
        if error is None:
            return delay
        if isinstance(error, StreamRefused):
            delay = max(delay, retry_after(error.response))
        if not self._is_worth_another(error) or (self._failures and self._is_exhausted(delay)):
            raise error
        return delay

    def _is_worth_another(self, error: Exception) -> bool:
        if isinstance(error, StreamRefused):
            return error.response.status_code in self._settings.retry_status
        # "Reestablish the connection, unless the user agent knows that to be futile."
        futile = isinstance(error, _FUTILE) or type(error) is requests.exceptions.InvalidJSONError
        return isinstance(error, EventTooLarge) or (isinstance(error, requests.RequestException) and not futile)

    def _is_exhausted(self, delay: float) -> bool:
        attempts, elapsed = self._settings.max_attempts, self._settings.max_elapsed
        if attempts is not None and self._failures >= attempts:
            return True
        return elapsed is not None and time.monotonic() + delay - self._good_at > elapsed
