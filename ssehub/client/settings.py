"""Settings: how a client follows, as one value."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import requests

from ssehub.backoff import Backoff
from ssehub.client.transport import Timeout
from ssehub.hooks import check_plain
from ssehub.wire import Decoder


@dataclass(frozen=True)
class Settings:
    """Hold a client's settings, as :class:`~ssehub.Client` describes them. Immutable.

    :raises TypeError: if one has the wrong type.
    :raises ValueError: if one is out of its range.
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
        self.timeouts  # noqa: B018 - checks them
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, or None, not {self.max_attempts!r}")
        if self.max_elapsed is not None and not self.max_elapsed > 0:
            raise ValueError(f"max_elapsed must be a positive number of seconds, or None, not {self.max_elapsed!r}")
        if isinstance(self.retry_status, str) or not all(isinstance(status, int) for status in self.retry_status):
            raise TypeError(f"retry_status must be status codes, not {self.retry_status!r}")
        if self.response_callback is not None and not callable(self.response_callback):
            raise TypeError(f"response_callback cannot be called: {self.response_callback!r}")
        check_plain("response_callback", self.response_callback)
        Decoder(max_event_size=self.max_event_size)  # raises if it is not positive

    @property
    def timeouts(self) -> Timeout:
        """The time-outs by their names."""
        if not isinstance(self.timeout, tuple) or len(self.timeout) != 3:
            raise TypeError(f"timeout must be (connect, headers, idle), in seconds, not {self.timeout!r}")
        for seconds in self.timeout:
            if seconds is not None and not seconds > 0:
                raise ValueError(f"a timeout must be a positive number of seconds, or None, not {seconds!r}")
        return Timeout(*self.timeout)
