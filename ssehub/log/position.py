"""Position: a place in the log, and the cursor it becomes on the wire."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# 13 base-36 digits hold 64 bits, 19 decimal digits hold 63: nothing longer was ever written by a log.
_CURSOR = re.compile(r"(?:([1-9][0-9]{0,3}):)?([0-9a-z]{1,13})\.(0|[1-9][0-9]{0,18})\.([0-9a-f]{8})")
#: Between the places of several lanes.
_AND = "~"
#: Lanes of a log at the most.
MAX_LANES = 1024

#: The nonce of the place before the first entry of an epoch.
GENESIS = "0" * 8


class Position(NamedTuple):
    """Name the place of an entry: which log, the how-manieth entry, and which entry exactly.

    ``str()`` of it is the cursor that travels as an event's ``id``. A cursor is neither a secret nor a permission.
    Immutable.
    """

    #: Tells one log from another that came in its place; a number that grows with the time at which it began. Clocks
    #: that are wrong can make a gap larger than it had to be, and nothing worse.
    epoch: int
    #: 1 for the first entry of an epoch; 0 is the place before it.
    offset: int
    #: 32 random bits as eight hex digits: tells this entry from another that was written to the same place later.
    nonce: str
    #: Which part of a log that is spread over several; each has an order of its own.
    lane: int = 0

    def __str__(self) -> str:
        lane = f"{self.lane}:" if self.lane else ""
        return f"{lane}{_base36(self.epoch)}.{self.offset}.{self.nonce}"

    @property
    def parts(self) -> tuple[Position, ...]:
        """The place in each lane: this one."""
        return (self,)

    def put(self, place: Position) -> Position:
        """Return the place with that lane's part replaced: just that place."""
        return place

    @classmethod
    def parse(cls, cursor: str) -> Position | None:
        """Read a cursor back; strictly, because it comes from outside.

        :returns: the position, or None if the text was not written by ``str(position)``.
        """
        match = _CURSOR.fullmatch(cursor)
        if match is None:
            return None
        position = cls(int(match[2], 36), int(match[3]), match[4], int(match[1] or 0))
        return position if str(position) == cursor else None


class Places(tuple[Position, ...]):
    """Name a place in several lanes: one position in each, in the order of the lanes. Immutable."""

    __slots__ = ()

    def __str__(self) -> str:
        return _AND.join(map(str, self))

    @property
    def parts(self) -> tuple[Position, ...]:
        """The place in each lane."""
        return self

    @property
    def epoch(self) -> tuple[int, ...]:
        """The epochs; they differ if any differs."""
        return tuple(place.epoch for place in self)

    @property
    def offset(self) -> int:
        """The number of entries up to here, in all lanes together."""
        return sum(place.offset for place in self)

    def put(self, place: Position) -> Places:
        """Return the places with that lane's replaced."""
        return Places(place if one.lane == place.lane else one for one in self)


#: A place in a log: in its one order, or in several.
Place = Position | Places


def parse_parts(cursor: str) -> dict[int, Position] | None:
    """Read a cursor back that may have a part for each of several lanes.

    :returns: the positions by lane, or None if it is no such cursor.
    """
    if cursor.count(_AND) >= MAX_LANES:
        return None
    parts = [Position.parse(part) for part in cursor.split(_AND)]
    places = {part.lane: part for part in parts if part is not None}
    return places if len(places) == len(parts) else None


def new_nonce() -> str:
    """Draw the nonce of a new entry."""
    return secrets.token_hex(4)


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
        if not number:
            return digits
