"""History: the entries of a log that are held in memory, with an index by zone and by client.

A reader reads only what is in its own channels (:mod:`ssehub.log.index`). So the cost of a read is the number of
entries it returns, whatever else the log holds. And a gap is exact: a reader gets one only if entries were dropped from
its own channels, or if that is not known any more.
"""

from __future__ import annotations

import collections
import itertools
import threading
import time
from array import array
from collections.abc import Sequence

from ssehub.log.base import Gap, Interest, Page
from ssehub.log.index import Index
from ssehub.log.packet import Command, Entry
from ssehub.log.position import GENESIS, Place, Position

#: Dropped entries whose nonces are remembered, four bytes each, where a log can be rolled back and written anew.
_NONCES = 1 << 18


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
        self.end: Position = end
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
        self._index = Index(size, end.offset)
        #: Entries that their channel can spare, because it has ``zone_size`` newer ones.
        self._spare: collections.deque[int] = collections.deque()
        #: Nothing after this offset was dropped.
        self._dropped_to = end.offset
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
            channels = self._index.channels(interest)
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
            return sum(channel.held.count(after.offset) for channel in self._index.channels(interest))

    def is_addressed(self, interest: Interest, begin: Place, end: Place | None = None) -> bool:
        """Return whether messages for a client alone lie, or lay, between two places."""
        after = begin.parts[0]
        upto = self.end if end is None else end.parts[0]
        if self._index.has_no(interest.client_id):
            return self._index.begin > after.offset
        with self._lock:
            if after.offset < self._dropped_to and self._index.client_dropped_to(interest) > after.offset:
                return True
            firsts = [one.held.next(after.offset) for one in self._index.channels_of_client(interest)]
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
            found = [channel.held.last(count) for channel in self._index.channels(interest)] if count else []
            offsets = sorted(itertools.chain.from_iterable(found))[-count:]
            return self._before(offsets[0]) if offsets else self.end

    def holds(self, place: Position) -> bool:
        """Return whether a place is one of this log's: of an entry that is held, or was dropped."""
        with self._lock:
            return self._lineage(place) is None

    # What follows runs under the lock.

    def _put(self, entry: Entry, offset: int) -> None:
        channel = self._index.put(entry.packet, offset)
        if self._zone_size is not None and len(channel.held) > self._zone_size:
            self._spare.append(channel.held.from_end(self._zone_size))
            while self._spare[0] not in self._entries:
                self._spare.popleft()

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
            held = [channel.held for channel in self._index.channels(interest)]
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
        reported = max(since, known)
        unknown_to = max(reported, self._index.unknown_to(interest))
        if unknown_to > reported:
            return None, unknown_to
        channels = self._index.channels(interest)
        next_held = min([offset for one in channels if (offset := one.held.next(since)) is not None], default=None)
        missing = sum(one.dropped.count(since) for one in channels)
        if next_held is not None:
            missing -= sum(one.dropped.count(next_held) for one in channels)
        return missing, unknown_to

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
            self._index.drop(entry.packet, offset)


def _epoch_and_offset(position: Position) -> tuple[int, int]:
    return position.epoch, position.offset
