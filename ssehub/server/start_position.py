"""StartPosition: the place in the log where a stream begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ssehub.log import Gap, Interest, Place, Readable
from ssehub.log.position import without_end

#: Where a stream without a last event id begins. None: at the end of the log. ``"oldest"``: at the oldest entry. A
#: number n: with the last n entries. Another text: after the entry with this cursor or id.
Since = str | int | None


class Found(NamedTuple):
    """The place where a reader begins."""

    place: Place
    #: The gap to report first; None if there is no gap.
    gap: Gap | None = None
    #: Dropped messages up to this place are not reported as a gap, because the reader did not ask for them.
    known: Place | None = None


@dataclass(frozen=True)
class StartPosition:
    """Where a stream begins: after the client's last event id or, if it has none, at ``since``.

    :raises ValueError: if ``since`` is a negative number or an empty text.
    :raises TypeError: if ``since`` is not a number, a text or None.
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

    def find(self, log: Readable, interest: Interest) -> Found:
        """Find the place in the log. If this process lags behind the log, this may block until it has caught up.

        :param interest: which entries count if ``since`` is a number.
        :raises LogError: if the log cannot be reached.
        """
        if self.last_event_id:
            return _locate(log, self.last_event_id)
        if self.since is None:
            return Found(log.end())
        if isinstance(self.since, int):
            return _accept(log, log.before_last(self.since, interest), interest)
        if self.since == "oldest":
            return _accept(log, log.oldest(), interest)
        return _locate(log, self.since)


def _locate(log: Readable, cursor: str) -> Found:
    place = log.locate(without_end(cursor))
    if isinstance(place, Gap):
        return Found(place.place, place)
    log.catch_up(place)
    return Found(place)


def _accept(log: Readable, place: Place, interest: Interest) -> Found:
    """Begin at a place, and do not report the messages that were dropped so far."""
    page = log.read(place, 0, interest)
    return Found(page.gap.place, None, page.place) if page.gap else Found(place)
