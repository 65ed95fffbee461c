"""Start: where a stream begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ssehub.log import Entry, Gap, Place, Readable

#: Where a stream without a last event id begins: now, at the oldest entry held, with the last n, or at a cursor.
Since = str | int | None


@dataclass(frozen=True)
class Start:
    """Say where a stream begins: after the client's last event id, or for a new client at ``since``.

    :raises ValueError: if ``since`` is a negative number or an empty text.
    :raises TypeError: if it is neither a number nor a text nor None.
    """

    last_event_id: str = ""
    since: Since = None

    def __post_init__(self) -> None:
        if self.since is None:
            return
        if not isinstance(self.since, (str, int)) or isinstance(self.since, bool):
            raise TypeError(f'since must be None, "oldest", a number or a cursor, not {self.since!r}')
        if self.since == "" or (isinstance(self.since, int) and self.since < 0):
            raise ValueError(f'since must be "oldest", a number from 0 up or a cursor, not {self.since!r}')

    def place(self, log: Readable, wanted: Callable[[Entry], bool]) -> Place | Gap:
        """Find the place in the log.

        :param wanted: tells what counts among "the last n".
        """
        if self.last_event_id:
            return log.locate(self.last_event_id)
        if self.since is None:
            return log.tail()
        if isinstance(self.since, int):
            return log.before_last(self.since, wanted)
        return log.oldest() if self.since == "oldest" else log.locate(self.since)
