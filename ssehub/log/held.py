"""Held: what is read of a log, or of a partition of it, whose entries this process holds in a history."""

from __future__ import annotations

from abc import abstractmethod

from ssehub.log.base import Interest, Page, Readable
from ssehub.log.history import History
from ssehub.log.position import Place, Position


class Held(Readable):
    """A log that is read from one :class:`~ssehub.log.history.History`. Safe to use from any thread."""

    @property
    @abstractmethod
    def history(self) -> History:
        """The entries that are held."""

    def read(
        self,
        after: Place,
        limit: int,
        interest: Interest | None = None,
        upto: Place | None = None,
        known: Place | None = None,
    ) -> Page:
        """Read on from a place; see :meth:`ssehub.log.Readable.read`."""
        return self.history.read(after, limit, interest, upto, known)

    def count(self, after: Place, interest: Interest | None = None) -> int:
        """Return how many of the entries that are held a reader would read."""
        return self.history.count(after, interest)

    def is_at_end(self, place: Place) -> bool:
        """Return whether no entry can be read after a place."""
        return self.history.end == place.parts[0]

    def is_addressed(self, interest: Interest, after: Place, upto: Place | None = None) -> bool:
        """Return whether a client has messages of its own between two places."""
        return self.history.is_addressed(interest, after, upto)

    def oldest(self) -> Position:
        """Return the place before the oldest entry that is held."""
        return self.history.oldest()

    def before_last(self, count: int, interest: Interest) -> Position:
        """Return the place from which a reader's last ``count`` entries follow."""
        return self.history.before_last(count, interest)
