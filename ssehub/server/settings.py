"""HubSettings: how a hub's connections behave, as one value."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ssehub.events import Message
from ssehub.events.message import MAX_RETRY


@dataclass(frozen=True)
class HubSettings:
    """A hub's settings for its connections; :class:`~ssehub.Hub` describes them. Immutable.

    :raises ValueError: if a number is out of its range.
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
        Message(retry=self.retry)  # raises if it is not a legal one

    @property
    def tick(self) -> float:
        """Seconds between two looks at the clock: an eighth of a heartbeat is how late one may come."""
        return max(0.005, min(self.heartbeat / 8, self.stall_timeout / 4, (self.max_age or 8.0) / 8, 1.0))

    def farewell(self, times: int = 1) -> bytes:
        """Make the last chunk of a stream that the hub ends: come back, but not all at the same moment.

        :param times: how many times longer than ``retry`` to stay away; up to twice that, at random.
        """
        return Message(retry=min(times * random.randint(self.retry, 2 * self.retry), MAX_RETRY)).encode()


def jitter(seconds: float) -> float:
    """Take up to a tenth away, so that what began together does not go on together."""
    return seconds * random.uniform(0.9, 1.0)


def check_number(name: str, value: object, kinds: tuple[type, ...] = (int, float), optional: bool = False) -> None:
    """Check a number where it enters.

    :param name: what an error calls it.
    :param optional: whether it may be None.
    :raises ValueError: if it is not positive, or infinite.
    :raises TypeError: if it is no number.
    """
    if value is None and optional:
        return
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number{' or None' if optional else ''}, not {value!r}")
    if not 0 < value < float("inf"):  # type: ignore[operator]
        raise ValueError(f"{name} must be positive, not {value!r}")
