"""Position: a place in one partition of a log. A place is sent to clients as text, the cursor."""

from __future__ import annotations

import functools
import random
import re
from typing import NamedTuple, TypeGuard

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# 13 base-36 digits hold 64 bits, 19 decimal digits hold 63 bits. Logs never write longer numbers.
_CURSOR = re.compile(r"(?:([1-9][0-9]{0,3}):)?([0-9a-z]{1,13})\.(0|[1-9][0-9]{0,18})\.([0-9a-f]{8})")
_NONCE = re.compile("[0-9a-f]{8}")
#: The separator between the positions of several partitions.
_AND = "~"
#: The maximum number of partitions that a log can have.
MAX_PARTITIONS = 1024

#: The nonce of the place before the first entry of an epoch.
GENESIS = "0" * 8


class Position(NamedTuple):
    """The place of an entry in one partition. Immutable.

    ``str(position)`` is the cursor: the ``id`` of the event. A cursor is neither a secret nor a permission.
    """

    #: The number of the log's beginning, which distinguishes a log from the one that replaced it. Later logs have
    #: greater epochs, because it is made from the clock. A wrong clock can make a gap larger than necessary, but a gap
    #: is always reported.
    epoch: int
    #: The entry's sequence number, counting from 1; 0 is the place before the first entry.
    offset: int
    #: 32 random bits as eight hex digits. They distinguish the entry from another one that is later written to the same
    #: place.
    nonce: str
    #: The number of the partition. Each partition has its own order.
    partition: int = 0

    def __str__(self) -> str:
        partition = f"{self.partition}:" if self.partition else ""
        return f"{partition}{_base36(self.epoch)}.{self.offset}.{self.nonce}"

    @property
    def parts(self) -> tuple[Position, ...]:
        """The positions in all partitions: only this one."""
        return (self,)

    def put(self, place: Position) -> Position:
        """Return ``place``. See :meth:`Places.put`."""
        return place

    def distance_to(self, end: Place) -> int:
        """Return how many entries lie between this place and a later one of the same log.

        :returns: 0 if ``end`` is not later, or belongs to another epoch or partition.
        """
        return sum(
            max(0, part.offset - self.offset)
            for part in end.parts
            if part.partition == self.partition and part.epoch == self.epoch
        )

    def furthest(self, other: Position) -> Position:
        """Return the later of two positions of one partition; ``other`` if they belong to different epochs."""
        return self if self.epoch == other.epoch and self.offset >= other.offset else other

    @classmethod
    def parse(cls, cursor: str) -> Position | None:
        """Parse a cursor. The check is strict, because cursors come from clients.

        :returns: the position, or None if the text is not the result of ``str(position)``.
        """
        match = _CURSOR.fullmatch(cursor)
        if match is None:
            return None
        position = cls(int(match[2], 36), int(match[3]), match[4], int(match[1] or 0))
        return position if str(position) == cursor else None


class Places(tuple[Position, ...]):
    """A place in several partitions: one position in each, in the order of the partitions. Immutable."""

    __slots__ = ()

    def __str__(self) -> str:
        return _AND.join(map(str, self))

    @property
    def parts(self) -> tuple[Position, ...]:
        """The positions in all partitions."""
        return self

    def put(self, place: Position) -> Places:
        """Return a copy in which ``place`` replaces the position in the same partition."""
        return Places(place if one.partition == place.partition else one for one in self)

    def distance_to(self, end: Place) -> int:
        """Return how many entries lie between this place and a later one, in all partitions together."""
        return sum(part.distance_to(end) for part in self)


#: The end of the id of an event after which a stream has no more events.
END_MARK = ".end"

#: A cursor that belongs to no log. A reader that begins there gets a gap.
NOWHERE = f"0.0.{GENESIS}"

#: A place in a log: in one partition, or in several.
Place = Position | Places


def parse_parts(cursor: str) -> dict[int, Position] | None:
    """Parse a cursor of one or several partitions.

    :returns: the positions by partition, or None if the text is not a cursor.
    """
    if cursor.count(_AND) >= MAX_PARTITIONS:
        return None
    parts = [Position.parse(part) for part in cursor.split(_AND)]
    places = {part.partition: part for part in parts if part is not None}
    return places if len(places) == len(parts) else None


def without_end(event_id: str) -> str:
    """Return the cursor in the id of an event that ends a production; any other id is returned unchanged."""
    return event_id.removesuffix(END_MARK) if is_end(event_id) else event_id


def is_end(event_id: str) -> bool:
    """Return whether an id is that of an event that ends a production."""
    return event_id.endswith(END_MARK) and parse_parts(event_id.removesuffix(END_MARK)) is not None


def new_nonce() -> str:
    """Return a random nonce for a new entry. Nonces distinguish entries, and are not secret."""
    return f"{random.getrandbits(32):08x}"


def is_nonce(value: object) -> TypeGuard[str]:
    """Return whether a value is a nonce."""
    return isinstance(value, str) and _NONCE.fullmatch(value) is not None


@functools.lru_cache(maxsize=64)
def _base36(number: int) -> str:
    digits = ""
    while True:
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
        if not number:
            return digits
