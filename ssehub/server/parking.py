"""Parking: which connections sleep, and who is to wake for an entry of the log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from ssehub.log import ALL, All, Entry, Position
from ssehub.server.reader import Reader
from ssehub.server.relay import Sleeper


class Parker(Sleeper, Protocol):
    """What is parked: a connection."""

    @property
    def id(self) -> str:
        """The session's id."""

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones it is in."""

    @property
    def reader(self) -> Reader:
        """Its place in the log."""

    @property
    def closed(self) -> str | None:
        """Why it has to end, or None."""


P = TypeVar("P", bound=Parker)


class Parking:
    """Know who sleeps. Safe to use from any thread; never blocks.

    A connection that is level with the log parks here and sleeps. An entry wakes those it is for; to all who do not
    sleep it costs nothing, because they read the log before they park. So a burst touches each connection once, however
    many messages it has.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parked: dict[str, Parker] = {}
        self._zones: dict[str, dict[str, Parker]] = {}
        #: The newest entry that was delivered; None before the first.
        self._tail: Position | None = None

    def tail(self) -> int:
        """Return the offset of the newest entry that was delivered; 0 before the first."""
        return self._tail.offset if self._tail else 0

    def park(self, parker: Parker) -> bool:
        """Note that a connection is about to sleep.

        :returns: False if there is something for it to look at first.
        """
        # Whoever has something for it leaves it first and looks then who is parked. Here it is the other way round, and
        # the lock is the same, so one of the two sees the other.
        with self._lock:
            reader = parker.reader
            if parker.closed or reader.private or reader.doubts or self._is_behind(reader.position):
                return False
            self._parked[parker.id] = parker
            for zone in parker.zones:
                self._zones.setdefault(zone, {})[parker.id] = parker
            return True

    def unpark(self, parkers: Iterable[P]) -> list[P]:
        """Note that connections are to wake for something that is not in the log.

        :returns: those of them that slept; whoever is told so wakes them.
        """
        with self._lock:
            return self._wake([parker for parker in parkers if parker.id in self._parked], self._tail)

    def wake_zone(self, entry: Entry, zone: str | All) -> list[Parker]:
        """Note that an entry was delivered, and return all who sleep in its zone: they are to be woken for it."""
        with self._lock:
            self._tail = entry.position
            parked = self._parked if zone is ALL else self._zones.get(zone, {})
            return self._wake(list(parked.values()), _before(entry))

    def wake_these(self, entry: Entry, find: Callable[[], Sequence[P]]) -> tuple[int, list[P]]:
        """Note that an entry was delivered.

        :param find: says whom it is for. It is called under the lock: whoever comes too late to be found here must not
            be able to sleep before the entry is noted.
        :returns: how many it is for, and those of them who sleep: they are to be woken for it.
        """
        with self._lock:
            self._tail = entry.position
            found = find()
            return len(found), self._wake([parker for parker in found if parker.id in self._parked], _before(entry))

    def wake_all(self, tail: Position) -> list[Parker]:
        """Note that the log goes on at another place than it was at, and return all who sleep: they are to be woken.

        What was delivered before they have seen, or it was other people's; what comes they have to judge.
        """
        with self._lock:
            woken = self._wake(list(self._parked.values()), self._tail)
            self._tail = tail
            return woken

    def lag(self, parker: Parker) -> int:
        """Return how many entries of the log a connection has yet to look at; 0 if it sleeps."""
        with self._lock:
            if parker.id in self._parked or not self._is_behind(parker.reader.position):
                return 0
            return max(1, self.tail() - parker.reader.position.offset)

    # What follows runs under the lock.

    def _is_behind(self, position: Position) -> bool:
        tail = self._tail
        return tail is not None and (tail.offset > position.offset or tail.epoch != position.epoch)

    def _wake(self, parkers: Sequence[P], place: Position | None) -> list[P]:
        for parker in parkers:
            del self._parked[parker.id]
            for zone in parker.zones:
                others = self._zones[zone]
                del others[parker.id]
                if not others:
                    del self._zones[zone]
            if place is not None:
                # What was delivered while it slept was other people's, or it would not have slept on.
                parker.reader.skip_to(place)
        return list(parkers)


def _before(entry: Entry) -> Position:
    return Position(entry.position.epoch, entry.position.offset - 1, entry.previous)
