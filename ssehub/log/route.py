"""Route: how a shared log stores a packet's address beside the encoded message, and how it is decoded.

A route is a dictionary. Fields without a value are left out.

=====  =================================================================================
Field  Content
=====  =================================================================================
``t``  When the message was sent, in seconds since 1970.
``z``  The zone; left out for all zones.
``c``  The client; left out for all clients.
``x``  The ids of the excluded sessions.
``o``  Of a command: its name, the session, the data and the version.
=====  =================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ssehub.events import Message
from ssehub.log.packet import ALL, Command, Entry, Packet
from ssehub.log.position import Position
from ssehub.log.production import END_TYPE, Ending


def follows(position: Position, previous: str | None, tail: Position) -> bool:
    """Return whether an entry is the next one after the tail.

    :param previous: the nonce of the entry before it.
    """
    return position[:2] == (tail.epoch, tail.offset + 1) and previous == tail.nonce


def route_of(packet: Packet, sent: float) -> dict[str, Any]:
    """Return the route of a packet.

    :param sent: when it was sent, in seconds since 1970.
    """
    route: dict[str, Any] = {
        "t": round(sent, 4),
        "z": None if packet.zone is ALL else packet.zone,
        "c": packet.client_id,
        "x": sorted(packet.exclude),
    }
    if isinstance(packet, Command):
        route["o"] = [packet.what, packet.session_id, packet.data, packet.version]
    return {name: value for name, value in route.items() if value}


def entry_of(position: Position, previous: str, route: Mapping[str, Any], body: bytes) -> Entry:
    """Decode an entry.

    :param body: the encoded message.
    :raises Exception: of any type, if another program wrote the entry, because it may contain anything.
    """
    sent = float(route.get("t", 0))
    if not math.isfinite(sent):
        raise ValueError("the time is not a number of seconds")
    return Entry(_packet_of(route, body, position), position, previous, body, sent)


def unreadable(position: Position, previous: str) -> Entry:
    """Return a replacement for an entry that cannot be read: a command that does nothing."""
    command = Command.nothing()
    return Entry(command, position, previous, command.encode())


def _packet_of(route: Mapping[str, Any], body: bytes, position: Position) -> Packet:
    message, zone, client_id = Message.decode(body), route.get("z", ALL), route.get("c")
    if "o" in route:
        what, session_id, data, version = route["o"]
        if what not in ("disconnect", "metadata", "produce", "stop"):
            raise ValueError(f"there is no command {what!r}")
        version = (int(version[0]), int(version[1])) if version else (position.epoch, position.offset)
        broadcast = client_id is None
        return Command(
            message, zone, client_id, broadcast, what=what, session_id=session_id, data=data, version=version
        )
    if message.event == END_TYPE:
        return Ending(message, zone, broadcast=True)
    return Packet(message, zone, client_id, client_id is None, frozenset(route.get("x", ())))
