"""HubSettings: the settings of a hub's connections, as one value."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssehub.events import Message
from ssehub.events.message import MAX_RETRY


@dataclass(frozen=True)
class HubSettings:
    """The settings of a hub's connections. :class:`~ssehub.Hub` describes them. Immutable.

    :raises ValueError: if a number is out of range.
    :raises TypeError: if a value has the wrong type.
    """

    heartbeat: float = 15.0
    retry: int = 2000
    max_pending: int = 256
    max_replay: int | None = None
    max_connections: int | None = None
    max_per_client: int | None = None
    max_age: float | None = None
    stall_timeout: float = 60.0
    detach: bool | None = None

    def __post_init__(self) -> None:
        for name in ("heartbeat", "max_age", "stall_timeout"):
            check_number(name, getattr(self, name), optional=name == "max_age")
        for name in ("max_pending", "max_replay", "max_connections", "max_per_client"):
            check_number(name, getattr(self, name), (int,), optional=name != "max_pending")
        if self.detach is not None and not isinstance(self.detach, bool):
            raise TypeError(f"detach must be True, False or None, not {self.detach!r}")
        Message(retry=self.retry)  # raises an error if the value is not allowed

    @property
    def tick(self) -> float:
        """Seconds between two checks of the clock, so that a heartbeat is late by an eighth of its interval at most."""
        return max(0.005, min(self.heartbeat / 8, self.stall_timeout / 4, (self.max_age or 8.0) / 8, 1.0))

    def farewell(self, times: int = 1) -> bytes:
        """Return the last chunk of a stream that the hub ends: a random reconnection time.

        It is random so that the clients do not all reconnect at the same moment.

        :param times: the reconnection time is at least ``times * retry``, and at most twice that.
        """
        return Message(retry=min(times * random.randint(self.retry, 2 * self.retry), MAX_RETRY)).encode()


def jitter(seconds: float) -> float:
    """Subtract up to a tenth at random, so that timers that start together do not expire together."""
    return seconds * random.uniform(0.9, 1.0)


def check_number(name: str, value: object, kinds: tuple[type, ...] = (int, float), optional: bool = False) -> None:
    """Check a number that must be positive and finite.

    :param name: the word for the number in error texts.
    :param kinds: the allowed types.
    :param optional: whether None is allowed.
    :raises ValueError: if the number is not positive, or infinite.
    :raises TypeError: if the value is not a number.
    """
    if value is None and optional:
        return
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number{' or None' if optional else ''}, not {value!r}")
    if not 0 < value < float("inf"):  # type: ignore[operator]
        raise ValueError(f"{name} must be positive, not {value!r}")
