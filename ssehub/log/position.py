"""Position: a place in the log, and the cursor it becomes on the wire."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# 13 base-36 digits hold 64 bits, 19 decimal digits hold 63: nothing longer was ever written by a log.
_CURSOR = re.compile(r"([0-9a-z]{1,13})\.(0|[1-9][0-9]{0,18})\.([0-9a-f]{8})")

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

    def __str__(self) -> str:
        return f"{_base36(self.epoch)}.{self.offset}.{self.nonce}"

    @classmethod
    def parse(cls, cursor: str) -> Position | None:
        """Read a cursor back; strictly, because it comes from outside.

        :returns: the position, or None if the text was not written by ``str(position)``.
        """
        match = _CURSOR.fullmatch(cursor)
        if match is None:
            return None
        position = cls(int(match[1], 36), int(match[2]), match[3])
        return position if str(position) == cursor else None


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
