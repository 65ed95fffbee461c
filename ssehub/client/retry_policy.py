"""RetryPolicy: a client's settings; decides whether and when to try again after an attempt."""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import requests
import urllib3

from ssehub.backoff import Backoff
from ssehub.client.responses import retry_after
from ssehub.client.transport import Timeout
from ssehub.events import Decoder
from ssehub.hooks import check_plain

#: Errors of requests about invalid arguments. To try again is futile.
_FUTILE = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidHeader,
)
#: OpenSSL's codes for a certificate that is not yet valid, or has expired. These errors pass with time or a renewal.
_PASSING = (9, 10)
#: Minimum number of seconds between the beginnings of two streams. Without it, a stream that asks for no delay and ends
#: at once would cause a thousand connections per second. Precedent: Firefox's EventSource.
_FLOOR = 0.5


@dataclass(frozen=True)
class Settings:
    """The settings of a client, as :class:`~ssehub.Client` describes them. Immutable.

    :raises TypeError: if one has the wrong type.
    :raises ValueError: if one is out of range.
    """

    reconnect_delay: float
    backoff: Backoff
    timeout: tuple[float | None, float | None, float | None]
    retry_status: Collection[int]
    max_attempts: int | None
    max_elapsed: float | None
    max_event_size: int
    response_callback: Callable[[requests.Response], object] | None
    #: Whether the request may be sent again after a response has begun.
    repeats: bool

    def __post_init__(self) -> None:
        if not (self.reconnect_delay >= 0 and math.isfinite(self.reconnect_delay)):
            raise ValueError(f"reconnect_delay must be a number of seconds, not {self.reconnect_delay!r}")
        if not isinstance(self.backoff, Backoff):
            raise TypeError(f"backoff must be a Backoff, not {type(self.backoff).__name__}")
        self.timeouts  # noqa: B018 - raises an error if they are invalid
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, or None, not {self.max_attempts!r}")
        if self.max_elapsed is not None and not self.max_elapsed > 0:
            raise ValueError(f"max_elapsed must be a positive number of seconds, or None, not {self.max_elapsed!r}")
        if isinstance(self.retry_status, str) or not all(isinstance(status, int) for status in self.retry_status):
            raise TypeError(f"retry_status must be status codes, not {self.retry_status!r}")
        if self.response_callback is not None and not callable(self.response_callback):
            raise TypeError(f"response_callback is not callable: {self.response_callback!r}")
        check_plain("response_callback", self.response_callback)
        Decoder(max_event_size=self.max_event_size)  # raises an error if it is not positive

    @property
    def timeouts(self) -> Timeout:
        """The timeouts by name."""
        if not isinstance(self.timeout, tuple) or len(self.timeout) != 3:
            raise TypeError(f"timeout must be (connect, headers, idle), in seconds, not {self.timeout!r}")
        for seconds in self.timeout:
            if seconds is not None and not seconds > 0:
                raise ValueError(f"a timeout must be a positive number of seconds, or None, not {seconds!r}")
        return Timeout(*self.timeout)


class RetryPolicy:
    """Evaluates attempts one after the other, and counts failures. It belongs to the thread that follows.

    :param settings: the settings of the client.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reconnection_time = settings.reconnect_delay
        #: Number of consecutive attempts without a message. It determines the delay.
        self.failures: int = 0
        # Number of consecutive attempts that ended with an error, with or without messages, and when the first began.
        self._errors = 0
        self._good_at = time.monotonic()

    def learn(self, reconnection_time: int | None) -> None:
        """Store the reconnection time that a stream has sent, in milliseconds; None if it has sent none."""
        if reconnection_time is not None:
            self._reconnection_time = reconnection_time / 1000

    def delay(self, error: Exception | None, *, good: bool, sent: bool = False, lasted: float = 0.0) -> float:
        """Return the seconds to wait before the next attempt.

        :param error: the error that ended the attempt; None if the stream ended normally.
        :param good: whether the connection was useful, see :class:`~ssehub.client.attempt.Attempt`.
        :param sent: whether the request may have reached the server.
        :param lasted: seconds for which the stream was open.
        :raises Exception: the error, if there is no further attempt.
        """
        backoff = self._settings.backoff
        self.failures = 0 if good else self.failures + 1
        if error is None or lasted >= backoff.reset_after:
            self._errors, self._good_at = 0, time.monotonic()
        else:
            if good and not self._errors:
                self._good_at = time.monotonic()
            self._errors += 1
        asked = self._reconnection_time
        if good:
            asked = max(asked, min(_FLOOR, backoff.maximum) - lasted)
        delay = backoff.delay(self.failures, asked)
        if error is None:
            return delay
        if isinstance(error, requests.HTTPError) and error.response is not None:
            delay = max(delay, retry_after(error.response))
        if not self._is_worth_another(error, sent) or (self._errors and self._is_exhausted(delay)):
            raise error
        return delay

    def _is_worth_another(self, error: Exception, sent: bool) -> bool:
        if isinstance(error, requests.HTTPError):
            # The source does not matter: raise_for_status() in a hook is the same as a response to the client.
            return error.response is not None and error.response.status_code in self._settings.retry_status
        # "Reestablish the connection, unless the user agent knows that to be futile."
        futile = isinstance(error, _FUTILE) or type(error) is requests.exceptions.InvalidJSONError
        if futile or not isinstance(error, requests.RequestException) or _is_untrusted(error):
            return False
        return self._settings.repeats or not sent or _was_never_connected(error)

    def _is_exhausted(self, delay: float) -> bool:
        attempts, elapsed = self._settings.max_attempts, self._settings.max_elapsed
        if attempts is not None and self._errors >= attempts:
            return True
        return elapsed is not None and time.monotonic() + delay - self._good_at > elapsed


def _was_never_connected(error: Exception) -> bool:
    """Return whether the request cannot have been sent."""
    kinds = requests.ConnectTimeout | requests.exceptions.ProxyError | urllib3.exceptions.NewConnectionError
    return any(isinstance(one, kinds) for one in _chain(error))


def _is_untrusted(error: Exception) -> bool:
    """Return whether a certificate was refused for a permanent reason: its name or its issuer."""
    refused = (one for one in _chain(error) if isinstance(one, ssl.SSLCertVerificationError))
    return any(one.verify_code not in _PASSING for one in refused)


def _chain(error: object) -> Iterator[BaseException]:
    """Yield an error and the errors that ``requests`` and ``urllib3`` have wrapped in it."""
    seen = 0
    while isinstance(error, BaseException) and seen < 10:
        yield error
        seen += 1
        below = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        error = below if isinstance(below, BaseException) else error.__cause__
