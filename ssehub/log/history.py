"""History: the entries of a log that are held in memory, with an index by zone and by client.

An entry is in exactly one *channel*: that of its zone, of its client, of its client in its zone, or of everyone. A
reader has a few channels (two, and two for each zone), and reads only what is in them. So the cost of a read is the
number of entries it returns, whatever else the log holds. Each channel also remembers what was dropped from it.
Therefore a gap is exact: a reader is told of missing messages only if they were in its own channels.

What is remembered of dropped entries is bounded as well. When it is forgotten, the history no longer knows whether a
reader from before missed anything. Then it reports a gap of unknown size rather than none.
"""

from __future__ import annotations

import collections
import itertools
import threading
import time
from array import array
from collections.abc import Iterator, Sequence

from ssehub.log.base import Gap, Interest, Page
from ssehub.log.offsets import Offsets
from ssehub.log.packet import ALL, Command, Entry
from ssehub.log.position import GENESIS, Place, Position

#: A zone (None: all) and a client (None: everyone in the zone).
Address = tuple[str | None, str | None]

#: Dropped entries whose channel is remembered, so that a gap's size is known; and channels that are remembered when
#: they are empty. At least so many, and four times as many as entries are held.
_REMEMBERED = 10_000
#: Dropped entries whose nonces are remembered, four bytes each, where a log can be rolled back and written anew.
_NONCES = 1 << 18


class _Channel:
    """The entries of one address: those held, and those dropped as far as they are remembered."""

    __slots__ = ("address", "dropped", "dropped_to", "forgotten_to", "held")

    def __init__(self, address: Address, dropped_to: int) -> None:
        self.address = address
        self.held = Offsets()
        self.dropped = Offsets()
        #: Nothing after this offset was dropped.
        self.dropped_to = dropped_to
        #: How many were dropped up to this offset is not known.
        self.forgotten_to = dropped_to


class History:
    """The newest entries of one epoch of one partition. Safe to use from any thread; it never blocks for long.

    :param size: entries held at most.
    :param ttl: seconds an entry is held; None for no limit of age.
    :param end: the place after which the first entry comes. What was before it is unknown, unless its offset is 0.
    :param zone_size: the newest entries of each channel that are dropped last; None for no difference between channels.
    :param can_fork: whether another log can be written in the place of this one, so that nonces have to be compared.
    """

    def __init__(
        self, size: int, ttl: float | None, end: Position, zone_size: int | None = None, can_fork: bool = False
    ) -> None:
        #: The place of the newest entry.
        self.end = end
        self._begin = end
        self._size = size
        self._ttl = ttl
        self._zone_size = zone_size
        self._lock = threading.Lock()
        #: In order, so that the first is the oldest.
        self._entries: collections.OrderedDict[int, Entry] = collections.OrderedDict()
        #: When each was added (``time.monotonic()``), if that matters.
        self._times: dict[int, float] = {}
        self._chosen_ids: dict[str, int] = {}
        self._zones: dict[str | None, _Channel] = {}
        self._clients: dict[str, dict[str | None, _Channel]] = {}
        #: Entries that their channel can spare, because it has ``zone_size`` newer ones.
        self._spare: collections.deque[int] = collections.deque()
        #: The channels of dropped entries, oldest first, as long as their number is remembered.
        self._dropped: collections.deque[_Channel] = collections.deque()
        #: Channels of which nothing is left: up to where entries were dropped from them.
        self._gone: collections.OrderedDict[Address, int] = collections.OrderedDict()
        #: Nothing is known of a channel that is in neither table, up to this offset.
        self._unknown_to = end.offset
        self._dropped_to = end.offset
        self._remembered = max(_REMEMBERED, 4 * size)
        #: The nonces of dropped entries, contiguous from ``_nonces_from`` on.
        self._nonces: array[int] | None = array("I") if can_fork else None
        self._nonces_from = end.offset + 1

    def renew_lock(self) -> None:
        """Make the lock anew in a forked child: it may have been held in the parent."""
        self._lock = threading.Lock()

    # Writing

    def keep(self, entry: Entry) -> None:
        """Add the entry that comes after the end, and drop one if there are too many."""
        offset = entry.position.offset
        with self._lock:
            self._entries[offset] = entry
            if not isinstance(entry.packet, Command):
                self._put(entry, offset)
            if self._ttl is not None:
                self._times[offset] = time.monotonic()
            if entry.packet.message.id:
                self._chosen_ids[entry.id] = offset
            self.end = entry.position
            if len(self._entries) > self._size:
                self._drop_one()
            self._expire()

    def clear(self) -> None:
        """Drop every entry; the end stays where it is."""
        with self._lock:
            while self._entries:
                self._drop(next(iter(self._entries)))

    # Reading

    def read(
        self,
        place: Place,
        limit: int,
        interest: Interest | None = None,
        upto: Place | None = None,
        known: Place | None = None,
    ) -> Page:
        """Read on from a place; see :meth:`ssehub.log.Readable.read`. Of several parts of a place the first counts."""
        after = place.parts[0]
        with self._lock:
            self._expire()
            end = self.end if upto is None else min(upto.parts[0], self.end, key=_epoch_and_offset)
            end = end if end.epoch == self.end.epoch else self.end
            gap, covered = self._judge(after, interest, None if known is None else known.parts[0])
            if gap is not None:
                return Page((), covered, False, gap)
            if interest is None:
                return self._read_all(after, end, limit)
            channels = self._channels(interest)
            # Not past the next entry that is missing: that is a gap of its own.
            whole = min([end.offset, *(hole - 1 for one in channels if (hole := one.dropped.next(after.offset)))])
            found = [channel.held.between(after.offset, whole, limit) for channel in channels]
            offsets = sorted(itertools.chain.from_iterable(found))[:limit]
            entries = [self._entries[offset] for offset in offsets]
            if len(offsets) == limit:
                return Page(entries, entries[-1].position if entries else after, limit == 0 and after >= end)
            if whole < end.offset:
                return Page(entries, entries[-1].position, False)
            return Page(entries, after.furthest(end) if after.epoch == end.epoch else end, True)

    def count(self, place: Place, interest: Interest | None = None) -> int:
        """Return how many entries a read from a place would give, in all."""
        after = place.parts[0]
        with self._lock:
            if after.epoch != self.end.epoch:
                after = after._replace(offset=0)
            if interest is None:
                return len(self._offsets_after(after.offset))
            return sum(channel.held.count(after.offset) for channel in self._channels(interest))

    def is_addressed(self, interest: Interest, begin: Place, end: Place | None = None) -> bool:
        """Tell whether messages for a client alone lie, or lay, between two places."""
        after = begin.parts[0]
        upto = self.end if end is None else end.parts[0]
        if interest.client_id not in self._clients and not self._gone:
            return self._unknown_to > after.offset
        with self._lock:
            if after.offset < self._dropped_to:
                for address in _addresses_of_client(interest):
                    channel = self._find(address)
                    dropped_to = self._gone.get(address, self._unknown_to) if channel is None else channel.dropped_to
                    if dropped_to > after.offset:
                        return True
            own = self._clients.get(interest.client_id or "", {})
            names = (None, *interest.zones) if interest.zoneless else interest.zones
            firsts = [own[name].held.next(after.offset) for name in names if name in own]
            return any(first is not None and first <= upto.offset for first in firsts)

    def find(self, chosen_id: str) -> Position | None:
        """Find the place of the entry whose id a publisher chose; of the newest, if it was chosen twice."""
        with self._lock:
            offset = self._chosen_ids.get(chosen_id)
            return None if offset is None else self._entries[offset].position

    def oldest(self) -> Position:
        """Return the place before the oldest entry that is held."""
        with self._lock:
            self._expire()
            return self._before(next(iter(self._entries))) if self._entries else self.end

    def before_last(self, count: int, interest: Interest) -> Position:
        """Return the place from which a reader's last ``count`` entries follow."""
        with self._lock:
            self._expire()
            found = [channel.held.last(count) for channel in self._channels(interest)] if count else []
            offsets = sorted(itertools.chain.from_iterable(found))[-count:]
            return self._before(offsets[0]) if offsets else self.end

    def holds(self, place: Position) -> bool:
        """Tell whether a place is one of this log's: of an entry that is held, or was dropped."""
        with self._lock:
            return self._lineage(place) is None

    # What follows runs under the lock.

    def _put(self, entry: Entry, offset: int) -> None:
        channel = self._channel(_address_of(entry))
        channel.held.append(offset)
        if self._zone_size is not None and len(channel.held) > self._zone_size:
            self._spare.append(channel.held.from_end(self._zone_size))
            while self._spare[0] not in self._entries:
                self._spare.popleft()

    def _find(self, address: Address) -> _Channel | None:
        zone, client_id = address
        return (self._zones if client_id is None else self._clients.get(client_id, {})).get(zone)

    def _channel(self, address: Address) -> _Channel:
        """Find the channel of an address, or make it."""
        zone, client_id = address
        table = self._zones if client_id is None else self._clients.setdefault(client_id, {})
        channel = table.get(zone)
        if channel is None:
            channel = table[zone] = _Channel(address, self._gone.pop(address, self._unknown_to))
        return channel

    def _channels(self, interest: Interest) -> list[_Channel]:
        """Return the channels of a reader that there are."""
        names = (None, *interest.zones) if interest.zoneless else interest.zones
        found = [channel for name in names if (channel := self._zones.get(name)) is not None]
        if interest.client_id is not None and (own := self._clients.get(interest.client_id)) is not None:
            found += [channel for name in names if (channel := own.get(name)) is not None]
        return found

    def _offsets_after(self, after: int) -> Sequence[int]:
        """Return the offsets of all entries that come after one, in order."""
        if not self._entries:
            return ()
        first, end = next(iter(self._entries)), self.end.offset
        if end - first + 1 == len(self._entries):
            return range(max(first, after + 1), end + 1)
        return [offset for offset in self._entries if offset > after]

    def _read_all(self, after: Position, end: Position, limit: int) -> Page:
        """Read whatever comes next; up to where entries were dropped from the midst."""
        offsets = [offset for offset in self._offsets_after(after.offset)[:limit] if offset <= end.offset]
        whole = [offset for n, offset in enumerate(offsets) if offset == offsets[0] + n]
        entries = [self._entries[offset] for offset in whole]
        level = entries[-1].position.offset >= end.offset if entries else after.offset >= end.offset
        return Page(entries, entries[-1].position if entries else after, level)

    def _before(self, offset: int) -> Position:
        return Position(self.end.epoch, offset - 1, self._entries[offset].previous, self.end.partition)

    def _before_next(self, after: int, interest: Interest | None) -> Position:
        """Return the place before the first entry of a reader that comes after an offset."""
        if interest is None:
            offsets = self._offsets_after(after)[:1]
        else:
            held = [channel.held for channel in self._channels(interest)]
            offsets = [offset for one in held if (offset := one.next(after)) is not None]
        return self._before(min(offsets)) if offsets else self.end

    def _judge(self, after: Position, interest: Interest | None, known: Position | None) -> tuple[Gap | None, Position]:
        """Say what is missing for a reader just after a place, and up to where that covers a loss of unknown size."""
        wrong = self._lineage(after)
        if wrong is not None:
            if after.epoch < self.end.epoch:
                # Nothing of a younger log can have been seen: all that is held is new to the reader.
                wrong = wrong._replace(place=self._before_next(0, interest))
            return wrong, self._at(self._dropped_to)
        if after.offset >= self._dropped_to:
            return None, after
        reported = known.offset if known is not None and known.epoch == after.epoch else 0
        if interest is None:
            start = self._before_next(after.offset, None)
            missed = start.offset - after.offset
            size = missed if after.offset >= self._begin.offset else None
            return (Gap("trimmed", size, start) if missed else None), start
        missing, unknown_to = self._missing(after.offset, reported, interest)
        covered = self._at(unknown_to)
        if missing == 0:
            return None, covered
        return Gap("trimmed", missing, self._before_next(after.offset, interest)), covered

    def _missing(self, since: int, known: int, interest: Interest) -> tuple[int | None, int]:
        """Say what is missing just after an offset, before the next entry that is held.

        :param known: an offset up to which a loss of unknown size was reported already.
        :returns: how many entries of the reader (None: unknown), and up to where a loss of unknown size reaches.
        """
        channels = {channel.address: channel for channel in self._channels(interest)}
        unknown_to = max(since, known)
        for address in _addresses(interest):
            channel = channels.get(address)
            lost_to = self._gone.get(address, self._unknown_to) if channel is None else channel.forgotten_to
            unknown_to = max(unknown_to, lost_to)
        next_held = min(
            [offset for one in channels.values() if (offset := one.held.next(since)) is not None], default=None
        )
        missing = 0
        for channel in channels.values():
            missing += channel.dropped.count(since) - (channel.dropped.count(next_held) if next_held is not None else 0)
        return (None if unknown_to > max(since, known) else missing), unknown_to

    def _lineage(self, after: Position) -> Gap | None:
        """Say why a place is none of this log; None if it is one, or was."""
        end = self.end
        if after.epoch != end.epoch:
            # If an older log has come back, nobody can know which of its entries the reader has seen.
            return Gap("epoch", None, end)
        if after.offset > end.offset:
            return Gap("ahead", None, end)
        nonce = self._nonce(after.offset)
        if nonce is not None and nonce != after.nonce:
            # Another entry stands where the reader's did. Nobody can know which of the others it has seen.
            return Gap("fork", None, end)
        if nonce is None and self._nonces is not None and after.offset > self._begin.offset:
            return Gap("trimmed", None, self._before_next(after.offset, None))
        return None

    def _nonce(self, offset: int) -> str | None:
        """Return the nonce of the entry at an offset; None if it is not known any more."""
        if (entry := self._entries.get(offset)) is not None:
            return entry.position.nonce
        if (entry := self._entries.get(offset + 1)) is not None:
            return entry.previous
        if offset == self.end.offset:
            return self.end.nonce
        if offset == self._begin.offset:
            return self._begin.nonce
        at = offset - self._nonces_from
        return f"{self._nonces[at]:08x}" if self._nonces is not None and 0 <= at < len(self._nonces) else None

    def _at(self, offset: int) -> Position:
        return Position(self.end.epoch, offset, GENESIS, self.end.partition)

    def _expire(self) -> None:
        if self._ttl is not None:
            limit = time.monotonic() - self._ttl
            while self._times and self._times[oldest := next(iter(self._entries))] < limit:
                self._drop(oldest)

    def _drop_one(self) -> None:
        """Drop the oldest entry that its channel can spare; if there is none, the oldest of all."""
        while self._spare:
            offset = self._spare.popleft()
            if offset in self._entries:
                return self._drop(offset)
        return self._drop(next(iter(self._entries)))

    def _drop(self, offset: int) -> None:
        entry = self._entries.pop(offset)
        self._times.pop(offset, None)
        self._dropped_to = max(self._dropped_to, offset)
        if entry.packet.message.id and self._chosen_ids.get(entry.id) == offset:
            del self._chosen_ids[entry.id]
        if self._nonces is not None:
            self._nonces.append(int(entry.position.nonce, 16))
            if len(self._nonces) > 2 * _NONCES:
                del self._nonces[:_NONCES]
                self._nonces_from += _NONCES
        if not isinstance(entry.packet, Command):
            zone, client_id = _address_of(entry)
            self._remember((self._zones if client_id is None else self._clients[client_id])[zone], offset)

    def _remember(self, channel: _Channel, offset: int) -> None:
        """Note that an entry was dropped from a channel, and forget the oldest such note if there are too many."""
        channel.held.remove(offset)
        channel.dropped.append(offset)
        channel.dropped_to = offset
        self._dropped.append(channel)
        if len(self._dropped) > self._remembered:
            oldest = self._dropped.popleft()
            oldest.forgotten_to = oldest.dropped.popleft()
            if not oldest.held and not oldest.dropped:
                self._forget(oldest)

    def _forget(self, channel: _Channel) -> None:
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


def _epoch_and_offset(position: Position) -> tuple[int, int]:
    return position.epoch, position.offset


def _address_of(entry: Entry) -> Address:
    packet = entry.packet
    return (None if packet.zone is ALL else packet.zone), packet.client_id


def _addresses(interest: Interest) -> Iterator[Address]:
    """Yield the addresses that a reader reads."""
    if interest.zoneless:
        yield None, None
    for zone in interest.zones:
        yield zone, None
    yield from _addresses_of_client(interest)


def _addresses_of_client(interest: Interest) -> Iterator[Address]:
    if interest.client_id is None:
        return
    if interest.zoneless:
        yield None, interest.client_id
    for zone in interest.zones:
        yield zone, interest.client_id
