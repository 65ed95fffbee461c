"""Parking: which connections sleep, and who is to wake for an entry of the log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from ssehub.log import ALL, All, Entry, Place, Position
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
    def lanes(self) -> tuple[int, ...]:
        """The lanes of the log that its zones are in."""

    @property
    def home(self) -> int:
        """The first of them: from here it takes what is in all."""

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
        #: Who sleeps, by the home of each, and by zone.
        self._homes: dict[int, dict[str, Parker]] = {}
        self._zones: dict[str, dict[str, Parker]] = {}
        #: The newest entry that was delivered in each lane.
        self._tails: dict[int, Position] = {}

    def park(self, parker: Parker) -> bool:
        """Note that a connection is about to sleep.

        :returns: False if there is something for it to look at first.
        """
        # Whoever has something for it leaves it first and looks then who is parked. Here it is the other way round, and
        # the lock is the same, so one of the two sees the other.
        with self._lock:
            reader = parker.reader
            if parker.closed or reader.private or reader.doubts or self._lag(reader.place):
                return False
            self._homes.setdefault(parker.home, {})[parker.id] = parker
            for zone in parker.zones:
                self._zones.setdefault(zone, {})[parker.id] = parker
            return True

    def unpark(self, parkers: Iterable[P]) -> list[P]:
        """Note that connections are to wake for something that is not in the log.

        :returns: those of them that slept; whoever is told so wakes them.
        """
        with self._lock:
            return self._wake([parker for parker in parkers if self._sleeps(parker)])

    def wake_zone(self, entry: Entry, zone: str | All) -> list[Parker]:
        """Note that an entry was delivered, and return all who sleep in its zone: they are to be woken for it.

        For all zones it is those whose home is its lane.
        """
        with self._lock:
            sleepers = self._homes.get(entry.position.lane, {}) if zone is ALL else self._zones.get(zone, {})
            return self._wake_for(entry, list(sleepers.values()))

    def wake_these(self, entry: Entry, find: Callable[[], Sequence[P]]) -> tuple[int, list[P]]:
        """Note that an entry was delivered.

        :param find: says whom it is for. It is called under the lock: whoever comes too late to be found here must not
            be able to sleep before the entry is noted.
        :returns: how many it is for, and those of them who sleep: they are to be woken for it.
        """
        with self._lock:
            found = find()
            return len(found), self._wake_for(entry, [parker for parker in found if self._sleeps(parker)])

    def wake_all(self, tail: Position) -> list[Parker]:
        """Note that a lane goes on at another place than it was at, and return who sleeps in it: they are to be woken.

        What was delivered before they have seen, or it was other people's; what comes they have to judge.
        """
        with self._lock:
            sleepers = [parker for home in self._homes.values() for parker in home.values()]
            woken = self._wake([parker for parker in sleepers if tail.lane in parker.lanes])
            self._tails[tail.lane] = tail
            return woken

    def lag(self, parker: Parker) -> int:
        """Return how many entries of the log a connection has yet to look at; 0 if it sleeps."""
        with self._lock:
            return 0 if self._sleeps(parker) else self._lag(parker.reader.place)

    # What follows runs under the lock.

    def _sleeps(self, parker: Parker) -> bool:
        return parker.id in self._homes.get(parker.home, ())

    def _lag(self, place: Place) -> int:
        lag = 0
        for part in place.parts:
            tail = self._tails.get(part.lane)
            if tail is not None and (tail.offset > part.offset or tail.epoch != part.epoch):
                lag += max(1, tail.offset - part.offset)
        return lag

    def _wake_for(self, entry: Entry, parkers: list[P]) -> list[P]:
        # What was delivered before while they slept was other people's, or they would not have slept on.
        position = entry.position
        self._tails[position.lane] = Position(position.epoch, position.offset - 1, entry.previous, position.lane)
        self._wake(parkers)
        self._tails[position.lane] = position
        return parkers

    def _wake(self, parkers: list[P]) -> list[P]:
        for parker in parkers:
            del self._homes[parker.home][parker.id]
            for zone in parker.zones:
                others = self._zones[zone]
                del others[parker.id]
                if not others:
                    del self._zones[zone]
            for lane in parker.lanes:
                if lane in self._tails:
                    parker.reader.skip_to(self._tails[lane])
        return parkers
