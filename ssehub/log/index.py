"""Index: finds the entries of a reader, and counts those that it has missed.

A *channel* is the list of entries with the same address. There are four kinds of channels: of a zone, of a client, of a
client in a zone, and of everyone. Each entry is in exactly one channel. A reader reads a few channels: two, and two
more for each of its zones.

A channel also remembers the offsets of dropped entries, so that a gap can report their number. This memory is bounded.
When the oldest offsets are forgotten, the number is unknown for readers that have not read past them.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator

from ssehub.log.base import Interest
from ssehub.log.offsets import Offsets
from ssehub.log.packet import ALL, Packet

#: A zone (None: all zones) and a client (None: everyone in the zone).
Address = tuple[str | None, str | None]

#: The minimum number of dropped entries, and of empty channels, that are remembered. If four times the number of held
#: entries is more, that many are remembered.
_REMEMBERED = 10_000


class Channel:
    """The entries with one address: the held ones, and the dropped ones that are still remembered."""

    __slots__ = ("address", "dropped", "dropped_to", "forgotten_to", "held")

    def __init__(self, address: Address, dropped_to: int) -> None:
        self.address: Address = address
        self.held: Offsets = Offsets()
        self.dropped: Offsets = Offsets()
        #: The largest offset of a dropped entry.
        self.dropped_to: int = dropped_to
        #: It is unknown how many entries up to this offset were dropped.
        self.forgotten_to: int = dropped_to


class Index:
    """The channels of a log, by zone and by client. Not thread-safe.

    :param size: the maximum number of entries that the log holds.
    :param begin: nothing is known about entries up to this offset.
    """

    def __init__(self, size: int, begin: int) -> None:
        self._zones: dict[str | None, Channel] = {}
        self._clients: dict[str, dict[str | None, Channel]] = {}
        #: The channels of the dropped entries that are remembered, oldest entry first.
        self._dropped: collections.deque[Channel] = collections.deque()
        #: For each empty channel that was removed, the largest offset of a dropped entry.
        self._gone: collections.OrderedDict[Address, int] = collections.OrderedDict()
        #: For a channel that is in none of these tables, nothing is known about entries up to this offset.
        self._unknown_to = begin
        self._remembered = max(_REMEMBERED, 4 * size)

    def put(self, packet: Packet, offset: int) -> Channel:
        """Add the entry of a packet. Return its channel."""
        zone, client_id = address = _address_of(packet)
        table = self._zones if client_id is None else self._clients.setdefault(client_id, {})
        channel = table.get(zone)
        if channel is None:
            channel = table[zone] = Channel(address, self._gone.pop(address, self._unknown_to))
        channel.held.append(offset)
        return channel

    def drop(self, packet: Packet, offset: int) -> None:
        """Remember that an entry was dropped. If too many are remembered, forget the oldest."""
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
        """Return the existing channels of a reader."""
        names = _zones_of(interest)
        found = [channel for name in names if (channel := self._zones.get(name)) is not None]
        return found + self.channels_of_client(interest)

    def channels_of_client(self, interest: Interest) -> list[Channel]:
        """Return the existing channels of a reader that are only for its client."""
        own = self._clients.get(interest.client_id) if interest.client_id is not None else None
        if own is None:
            return []
        return [channel for name in _zones_of(interest) if (channel := own.get(name)) is not None]

    def unknown_to(self, interest: Interest) -> int:
        """Return the offset up to which the number of a reader's dropped entries is unknown."""
        return max(gone if one is None else one.forgotten_to for one, gone in self._look_up(_addresses(interest)))

    def client_dropped_to(self, interest: Interest) -> int:
        """Return the largest offset of a dropped entry that was only for a reader's client."""
        addresses = _addresses_of_client(interest)
        return max((gone if one is None else one.dropped_to for one, gone in self._look_up(addresses)), default=0)

    def has_no(self, client_id: str | None) -> bool:
        """Return whether a client has no channel of its own, and certainly never had one.

        You may call this without the lock that guards the index.
        """
        return client_id not in self._clients and not self._gone

    @property
    def begin(self) -> int:
        """For a channel that does not exist, nothing is known about entries up to this offset."""
        return self._unknown_to

    def _look_up(self, addresses: Iterator[Address]) -> Iterator[tuple[Channel | None, int]]:
        """Yield for each address its channel, if it exists, and the largest offset dropped from it, if it does not."""
        for address in addresses:
            zone, client_id = address
            table = self._zones if client_id is None else self._clients.get(client_id, {})
            yield table.get(zone), self._gone.get(address, self._unknown_to)

    def _forget(self, channel: Channel) -> None:
        """Remove an empty channel, and remember only its largest dropped offset."""
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
    """Yield the addresses of all channels of a reader."""
    for zone in _zones_of(interest):
        yield zone, None
    yield from _addresses_of_client(interest)


def _addresses_of_client(interest: Interest) -> Iterator[Address]:
    if interest.client_id is not None:
        for zone in _zones_of(interest):
            yield zone, interest.client_id
