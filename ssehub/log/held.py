"""Held: the read methods of a log, or of a partition, whose entries are in one history in this process."""

from __future__ import annotations

from abc import abstractmethod

from ssehub.log.base import Interest, Page, Readable
from ssehub.log.history import History
from ssehub.log.position import Place, Position


class Held(Readable):
    """A log whose readers read one :class:`~ssehub.log.history.History`. Safe to use from any thread."""

    @property
    @abstractmethod
    def history(self) -> History:
        """The history: the entries that this process holds."""

    def read(
        self,
        after: Place,
        limit: int,
        interest: Interest | None = None,
        upto: Place | None = None,
        known: Place | None = None,
    ) -> Page:
        """Read the entries after a place; see :meth:`ssehub.log.Readable.read`."""
        return self.history.read(after, limit, interest, upto, known)

    def count(self, after: Place, interest: Interest | None = None) -> int:
        """Return how many entries a reader would read after a place."""
        return self.history.count(after, interest)

    def is_at_end(self, place: Place) -> bool:
        """Return whether a place is the end of the log."""
        return self.history.end == place.parts[0]

    def is_addressed(self, interest: Interest, after: Place, upto: Place | None = None) -> bool:
        """Return whether there are, or were, messages to the client alone between two places."""
        return self.history.is_addressed(interest, after, upto)

    def oldest(self) -> Position:
        """Return the place before the oldest entry that this process holds."""
        return self.history.oldest()

    def before_last(self, count: int, interest: Interest) -> Position:
        """Return the place after which a reader reads its last ``count`` entries."""
        return self.history.before_last(count, interest)
