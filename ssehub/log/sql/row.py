"""Row: an entry of the log as a row of a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from ssehub.events import Message
from ssehub.log.packet import Entry, Packet
from ssehub.log.position import Position
from ssehub.log.route import entry_of, route_of


class Letter(NamedTuple):
    """The columns of an entry that is to be appended. The log adds the number and the nonce of the entry before."""

    nonce: str
    #: The zone; None for all zones.
    zone: str | None
    #: The client; None for all clients.
    client_id: str | None
    #: When the message was sent, in seconds since 1970.
    sent: float
    #: The other fields of the route (:mod:`ssehub.log.route`) as JSON; None if there are no others.
    extra: str | None
    #: The encoded message.
    body: bytes
    #: The key and the address (:attr:`ssehub.Packet.once`); None without a key.
    once: str | None


#: The columns of a letter, in order.
LETTER = ", ".join(Letter._fields)
#: What is decoded instead of a message that was dropped.
_NO_MESSAGE = Message("").encode()
#: The columns of a row, in order.
COLUMNS = f"number, previous, {LETTER}"


class Row(NamedTuple):
    """An entry in the table. ``body`` is None if the log has dropped the message."""

    #: The offset of the entry.
    number: int
    previous: str
    nonce: str
    zone: str | None
    client_id: str | None
    sent: float
    extra: str | None
    #: The encoded message. Other programs may write a text.
    body: bytes | str | None
    once: str | None

    def position(self, epoch: int) -> Position:
        """Return the position of the entry in the log with this epoch."""
        return Position(epoch, self.number, self.nonce)

    def entry(self, epoch: int) -> Entry:
        """Decode the entry. If the message was dropped, only the address is decoded.

        :raises Exception: of any type, if another program wrote the row, because it may contain anything.
        """
        route: dict[str, Any] = {"t": self.sent, **(json.loads(self.extra) if self.extra else {})}
        if self.zone is not None:
            route["z"] = self.zone
        if self.client_id is not None:
            route["c"] = self.client_id
        body = _NO_MESSAGE if self.body is None else self.body
        return entry_of(self.position(epoch), self.previous, route, body.encode() if isinstance(body, str) else body)


class Found(NamedTuple):
    """The result of reading the table: the end of the log, and rows in order."""

    end: Position
    rows: Sequence[Row]


def letter_of(packet: Packet, nonce: str, now: float) -> Letter:
    """Return the columns for a packet.

    :param now: the current time, in seconds since 1970.
    """
    route = route_of(packet, now)
    sent, zone, client_id = route.pop("t"), route.pop("z", None), route.pop("c", None)
    extra = json.dumps(route) if route else None  # half of a surrogate pair stays escaped
    return Letter(nonce, zone, client_id, sent, extra, packet.encode(), packet.once)
