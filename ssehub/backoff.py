"""Backoff: how long to wait before the next attempt (a value)."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

#: Seconds a stream, or a Retry-After, may send a client away for: 26-digit reconnection times have been seen.
LONGEST = 86_400.0
#: By how much a wait after a good connection is spread at the most, so that the clients of a server that died do not
#: come back in one instant. Browsers' own test suite tolerates a quarter.
SPREAD = 0.1


@dataclass(frozen=True)
class Backoff:
    """Say how long to wait after attempts that failed. Immutable, so clients may share it.

    After a connection that was good the wait is the stream's reconnection time, spread by a tenth. "After a failed
    attempt the user agent may introduce an exponential backoff delay" (WHATWG HTML 9.2.3): the n-th failure in a row
    waits ``initial * factor ** n`` seconds, or the reconnection time instead of ``initial`` where that is longer, less
    a random share. It is never shorter than the reconnection time.

    :param initial: seconds that the first failure's wait is made from.
    :param factor: by how much each further failure multiplies it.
    :param maximum: seconds at the most, unless the server asks for more.
    :param jitter: the share, 0 to 1, up to which a wait is shortened at random.
    :param reset_after: seconds after which a connection counts as good though it brought no message.
    :raises ValueError: if one of them is out of its range.
    """

    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 60.0
    jitter: float = 0.5
    reset_after: float = 10.0

    def __post_init__(self) -> None:
        for name, least in (("initial", 0.0), ("factor", 1.0), ("maximum", 0.0), ("jitter", 0.0), ("reset_after", 0.0)):
            value = getattr(self, name)
            if not (value >= least and math.isfinite(value)):
                raise ValueError(f"{name} must be a finite number of at least {least:g}, not {value!r}")
        if self.jitter > 1:
            raise ValueError(f"jitter is a share and at most 1, not {self.jitter!r}")

    def delay(self, failures: int, reconnection_time: float) -> float:
        """Return the seconds to wait.

        :param failures: attempts that have failed one after the other; 0 after a good connection.
        :param reconnection_time: seconds the stream asks for.
        """
        base = min(reconnection_time, LONGEST)
        if not failures:
            return random.uniform(base, base * (1 + SPREAD))
        start = max(base, self.initial)
        try:
            grown = start * self.factor**failures
        except OverflowError:
            grown = self.maximum
        grown = max(base, min(grown, self.maximum))
        return random.uniform(max(base, grown * (1 - self.jitter)), grown)
