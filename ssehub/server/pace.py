"""Pace: how a hub's connections behave, as one value."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssehub.wire import Message
from ssehub.wire.message import MAX_RETRY


@dataclass(frozen=True)
class Pace:
    """Hold a hub's settings for its connections, as :class:`~ssehub.Hub` describes them. Immutable.

    :raises ValueError: if a number is out of its range.
    """

    heartbeat: float = 15.0
    retry: int = 2000
    max_pending: int = 256
    max_replay: int | None = None
    max_connections: int | None = None
    max_per_client: int | None = None
    max_age: float | None = None
    stall_timeout: float = 60.0

    def __post_init__(self) -> None:
        for name in ("heartbeat", "max_age", "stall_timeout"):
            _check(name, getattr(self, name), (int, float), optional=name == "max_age")
        for name in ("max_pending", "max_replay", "max_connections", "max_per_client"):
            _check(name, getattr(self, name), (int,), optional=name != "max_pending")
        Message(retry=self.retry)  # says what is wrong with it

    def farewell(self, times: int = 1) -> bytes:
        """Make the last chunk of a stream that ends by our will: come back, but not all in the same instant.

        :param times: how many times longer than ``retry`` to stay away; up to twice that, at random.
        """
        return Message(retry=min(times * random.randint(self.retry, 2 * self.retry), MAX_RETRY)).encode()


def jitter(seconds: float) -> float:
    """Take up to a tenth away, so that what began together does not go on together."""
    return seconds * random.uniform(0.9, 1.0)


def _check(name: str, value: object, kinds: tuple[type, ...], optional: bool) -> None:
    if value is None and optional:
        return
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number{' or None' if optional else ''}, not {value!r}")
    if not 0 < value < float("inf"):  # type: ignore[operator]
        raise ValueError(f"{name} must be positive, not {value!r}")
