"""Index: which offsets of a log are whose, and which were dropped.

An entry is in exactly one *channel*: that of its zone, of its client, of its client in its zone, or of everyone. A
reader has a few channels (two, and two for each zone). Each channel also remembers what was dropped from it. That is
bounded: when it is forgotten, the index no longer knows how many messages a reader from before has missed, or whether
it has missed any, and says so.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator

from ssehub.log.base import Interest
from ssehub.log.offsets import Offsets
from ssehub.log.packet import ALL, Packet

#: A zone (None: all) and a client (None: everyone in the zone).
Address = tuple[str | None, str | None]

#: Dropped entries whose channel is remembered, so that a gap's size is known; and channels that are remembered when
#: they are empty. At least so many, and four times as many as entries are held.
_REMEMBERED = 10_000


class Channel:
    """The entries of one address: those held, and those dropped as far as they are remembered."""

    __slots__ = ("address", "dropped", "dropped_to", "forgotten_to", "held")

    def __init__(self, address: Address, dropped_to: int) -> None:
        self.address: Address = address
        self.held: Offsets = Offsets()
        self.dropped: Offsets = Offsets()
        #: Nothing after this offset was dropped.
        self.dropped_to: int = dropped_to
        #: How many were dropped up to this offset is not known.
        self.forgotten_to: int = dropped_to


class Index:
    """Finds the entries of a reader by zone and by client. Not thread-safe.

    :param size: entries held at most.
    :param begin: the offset up to which nothing is known.
    """

    def __init__(self, size: int, begin: int) -> None:
        self._zones: dict[str | None, Channel] = {}
        self._clients: dict[str, dict[str | None, Channel]] = {}
        #: The channels of dropped entries, oldest first, as long as their number is remembered.
        self._dropped: collections.deque[Channel] = collections.deque()
        #: Channels of which nothing is left: up to where entries were dropped from them.
        self._gone: collections.OrderedDict[Address, int] = collections.OrderedDict()
        #: Nothing is known of a channel that is in neither table, up to this offset.
        self._unknown_to = begin
        self._remembered = max(_REMEMBERED, 4 * size)

    def put(self, packet: Packet, offset: int) -> Channel:
        """Add the entry of a packet, and return its channel."""
        zone, client_id = address = _address_of(packet)
        table = self._zones if client_id is None else self._clients.setdefault(client_id, {})
        channel = table.get(zone)
        if channel is None:
            channel = table[zone] = Channel(address, self._gone.pop(address, self._unknown_to))
        channel.held.append(offset)
        return channel

    def drop(self, packet: Packet, offset: int) -> None:
        """Note that an entry was dropped, and forget the oldest such note if there are too many."""
        zone, client_id = _address_of(packet)
        channel = (self._zones if client_id is None else self._clients[client_id])[zone]
        channel.held.remove(offset)
        channel.dropped.append(offset)
        channel.dropped_to = offset
        self._dropped.append(channel)
        if len(self._dropped) > self._remembered:
            oldest = self._dropped.popleft()
            oldest.forgotten_to = oldest.dropped.popleft()
            if not oldest.held and not oldest.dropped:
                self._forget(oldest)

    def channels(self, interest: Interest) -> list[Channel]:
        """Return the channels of a reader that there are."""
        names = _zones_of(interest)
        found = [channel for name in names if (channel := self._zones.get(name)) is not None]
        return found + self.channels_of_client(interest)

    def channels_of_client(self, interest: Interest) -> list[Channel]:
        """Return those of a reader's channels that are its client's alone."""
        own = self._clients.get(interest.client_id) if interest.client_id is not None else None
        if own is None:
            return []
        return [channel for name in _zones_of(interest) if (channel := own.get(name)) is not None]

    def unknown_to(self, interest: Interest) -> int:
        """Return up to which offset it is not known how many entries of a reader were dropped."""
        return max(gone if one is None else one.forgotten_to for one, gone in self._look_up(_addresses(interest)))

    def client_dropped_to(self, interest: Interest) -> int:
        """Return after which offset no entry of a reader's client alone was dropped."""
        addresses = _addresses_of_client(interest)
        return max((gone if one is None else one.dropped_to for one, gone in self._look_up(addresses)), default=0)

    def has_no(self, client_id: str | None) -> bool:
        """Return whether a client has no channel of its own, and never had one since the index began.

        It may be called without the lock that guards the index.
        """
        return client_id not in self._clients and not self._gone

    @property
    def begin(self) -> int:
        """The offset up to which nothing is known of a channel that is not here."""
        return self._unknown_to

    def _look_up(self, addresses: Iterator[Address]) -> Iterator[tuple[Channel | None, int]]:
        """Yield for each address its channel, and for one that is not here up to where entries were dropped."""
        for address in addresses:
            zone, client_id = address
            table = self._zones if client_id is None else self._clients.get(client_id, {})
            yield table.get(zone), self._gone.get(address, self._unknown_to)

    def _forget(self, channel: Channel) -> None:
        """Keep of an empty channel only where it was dropped, and of the oldest such channels nothing."""
        zone, client_id = channel.address
        if client_id is None:
            del self._zones[zone]
        else:
            del self._clients[client_id][zone]
            if not self._clients[client_id]:
                del self._clients[client_id]
        self._gone[channel.address] = channel.dropped_to
        if len(self._gone) > self._remembered:
            self._unknown_to = max(self._unknown_to, self._gone.popitem(last=False)[1])


def _address_of(packet: Packet) -> Address:
    return (None if packet.zone is ALL else packet.zone), packet.client_id


def _zones_of(interest: Interest) -> tuple[str | None, ...]:
    return (None, *interest.zones) if interest.zoneless else interest.zones


def _addresses(interest: Interest) -> Iterator[Address]:
    """Yield the addresses that a reader reads."""
    for zone in _zones_of(interest):
        yield zone, None
    yield from _addresses_of_client(interest)


def _addresses_of_client(interest: Interest) -> Iterator[Address]:
    if interest.client_id is not None:
        for zone in _zones_of(interest):
            yield zone, interest.client_id
