"""Delegating: the read methods of a log whose readers read another object, such as its partitions."""

from __future__ import annotations

from abc import abstractmethod

from ssehub.log.base import Gap, Interest, Page, Readable
from ssehub.log.position import Place


class Delegating(Readable):
    """A log whose entries are read from another :class:`~ssehub.log.Readable`. Safe to use from any thread."""

    @property
    @abstractmethod
    def view(self) -> Readable:
        """The object that is read.

        :raises LogError: if the log is not started, or cannot be reached.
        """

    def read(
        self,
        after: Place,
        limit: int,
        interest: Interest | None = None,
        upto: Place | None = None,
        known: Place | None = None,
    ) -> Page:
        """Read the entries after a place; see :meth:`ssehub.log.Readable.read`."""
        return self.view.read(after, limit, interest, upto, known)

    def catch_up(self, place: Place) -> None:
        """Wait until this process holds the log up to a place; see :meth:`ssehub.log.Readable.catch_up`."""
        self.view.catch_up(place)

    def count(self, after: Place, interest: Interest | None = None) -> int:
        """Return how many entries a reader would read after a place."""
        return self.view.count(after, interest)

    def is_at_end(self, place: Place) -> bool:
        """Return whether a place is the end of the log."""
        return self.view.is_at_end(place)

    def is_addressed(self, interest: Interest, after: Place, upto: Place | None = None) -> bool:
        """Return whether there are, or were, messages to the client alone between two places."""
        return self.view.is_addressed(interest, after, upto)

    def locate(self, last_event_id: str) -> Place | Gap:
        """Find the place of an id; see :meth:`ssehub.log.Readable.locate`."""
        return self.view.locate(last_event_id)

    def end(self) -> Place:
        """Return the place of the newest entry delivered in this process."""
        return self.view.end()

    def oldest(self) -> Place:
        """Return the place before the oldest entry that this process holds."""
        return self.view.oldest()

    def before_last(self, count: int, interest: Interest) -> Place:
        """Return the place after which a reader reads its last ``count`` entries."""
        return self.view.before_last(count, interest)
