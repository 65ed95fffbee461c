"""Backoff: how long to wait before the next attempt."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

#: The longest wait, in seconds, that a stream or a ``Retry-After`` header can ask for. Streams with reconnection times
#: of 26 digits have been seen.
LONGEST = 86_400.0
#: After a good connection, the wait is made longer at random by up to this share. So the clients of a server that died
#: do not reconnect at the same moment. The browsers' own test suite tolerates a quarter.
SPREAD = 0.1


@dataclass(frozen=True)
class Backoff:
    """How long a client waits before it reconnects. Immutable, so clients may share it.

    There are two cases:

    * After a good connection, the wait is the stream's reconnection time, plus up to a tenth of it at random.
    * After failures, the wait grows: "After a failed attempt the user agent may introduce an exponential backoff delay"
      (WHATWG HTML 9.2.3). After the n-th failure in a row, it is ``initial * factor ** n`` seconds. If the reconnection
      time is longer than ``initial``, it takes the place of ``initial``. The wait is then shortened by a random share,
      but never below the reconnection time.

    :param initial: seconds; see above.
    :param factor: the wait is multiplied by this number after each further failure.
    :param maximum: the longest wait in seconds, unless the server asks for a longer one.
    :param jitter: a wait is shortened at random by up to this share, 0 to 1.
    :param reset_after: a connection that lasts this many seconds counts as good, even if no message came.
    :raises ValueError: if a value is out of range.
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
            raise ValueError(f"jitter must be at most 1, not {self.jitter!r}")

    def delay(self, failures: int, reconnection_time: float) -> float:
        """Return the seconds to wait.

        :param failures: the number of failed attempts in a row; 0 after a good connection.
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
