"""History: the entries of a log that a process holds in memory, with an index by zone and by client.

Each entry is in one channel (:mod:`ssehub.log.index`), and a reader reads only its own few channels. This has two
consequences:

* The cost of a read is proportional to the number of entries that it returns, however many the log holds.
* Gaps are exact. A reader gets a gap only if entries were dropped from its own channels, or if it is no longer known
  whether any were dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ssehub.log.base import Gap, Interest, Page
from ssehub.log.holdings import Holdings
from ssehub.log.packet import Entry, Packet
from ssehub.log.position import GENESIS, Place, Position


class History(Holdings):
    """The newest entries of one epoch of one partition. Safe to use from any thread; never blocks for long."""

    def read(
        self,
        place: Place,
        limit: int,
        interest: Interest | None = None,
        upto: Place | None = None,
        known: Place | None = None,
    ) -> Page:
        """Read the entries after a place; see :meth:`ssehub.log.Readable.read`. Only a place's first part is used."""
        after = place.parts[0]
        with self._lock:
            self._expire()
            end = self.end if upto is None else min(upto.parts[0], self.end, key=lambda place: place[:2])
            end = end if end.epoch == self.end.epoch else self.end
            gap, covered = self._judge(after, interest, None if known is None else known.parts[0])
            if gap is not None:
                return Page((), covered, False, gap)
            if interest is None:
                return self._read_all(after, end, limit)
            channels = self._index.channels(interest)
            # Stop before the next missing entry. The next read reports it as a gap.
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
        """Return how many entries a reader would read after a place."""
        after = place.parts[0]
        with self._lock:
            if after.epoch != self.end.epoch:
                after = after._replace(offset=0)
            if interest is None:
                return len(self._offsets_after(after.offset))
            return sum(channel.held.count(after.offset) for channel in self._index.channels(interest))

    def is_addressed(self, interest: Interest, begin: Place, end: Place | None = None) -> bool:
        """Return whether there are, or were, messages to the client alone between two places."""
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
        """Find the place of the entry with an id that a publisher chose; of the newest, if several have this id."""
        with self._lock:
            offset = self._chosen_ids.get(chosen_id)
            return None if offset is None else self._entries[offset].position

    def first_of(self, packet: Packet) -> Entry | None:
        """Return the entry with the key and the address of a packet; None if there is no such entry."""
        if (once := packet.once) is None:
            return None
        with self._lock:
            self._expire()
            offset = self._keyed.get(once)
            return None if offset is None else self._entries[offset]

    def oldest(self) -> Position:
        """Return the place before the oldest entry that is held."""
        with self._lock:
            self._expire()
            return self._before(next(iter(self._entries))) if self._entries else self.end

    def before_last(self, count: int, interest: Interest) -> Position:
        """Return the place after which a reader reads its last ``count`` entries."""
        with self._lock:
            self._expire()
            found = [channel.held.last(count) for channel in self._index.channels(interest)] if count else []
            offsets = sorted(itertools.chain.from_iterable(found))[-count:]
            return self._before(offsets[0]) if offsets else self.end

    def holds(self, place: Position) -> bool:
        """Return whether a place belongs to this log: an entry of the log is there, or was there and was dropped."""
        with self._lock:
            return self._lineage(place) is None

    # The methods below run under the lock.

    def _offsets_after(self, after: int) -> Sequence[int]:
        """Return the offsets of all entries after an offset, in order."""
        if not self._entries:
            return ()
        first, end = next(iter(self._entries)), self.end.offset
        if end - first + 1 == len(self._entries):
            return range(max(first, after + 1), end + 1)
        return [offset for offset in self._entries if offset > after]

    def _read_all(self, after: Position, end: Position, limit: int) -> Page:
        """Read entries of any address, up to the next one that is missing."""
        offsets = [offset for offset in self._offsets_after(after.offset)[:limit] if offset <= end.offset]
        whole = [offset for n, offset in enumerate(offsets) if offset == offsets[0] + n]
        entries = [self._entries[offset] for offset in whole]
        level = entries[-1].position.offset >= end.offset if entries else after.offset >= end.offset
        return Page(entries, entries[-1].position if entries else after, level)

    def _before(self, offset: int) -> Position:
        return Position(self.end.epoch, offset - 1, self._entries[offset].previous, self.end.partition)

    def _before_next(self, after: int, interest: Interest | None) -> Position:
        """Return the place before a reader's first entry after an offset."""
        if interest is None:
            offsets = self._offsets_after(after)[:1]
        else:
            held = [channel.held for channel in self._index.channels(interest)]
            offsets = [offset for one in held if (offset := one.next(after)) is not None]
        return self._before(min(offsets)) if offsets else self.end

    def _judge(self, after: Position, interest: Interest | None, known: Position | None) -> tuple[Gap | None, Position]:
        """Return the gap for a reader just after a place, if there is one.

        Also return the place up to which all losses of unknown size are reported, now or before.
        """
        wrong = self._lineage(after)
        if wrong is not None:
            if after.epoch < self.end.epoch:
                # This log is newer than the reader's log. So all entries of this one are new to the reader.
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
        """Count a reader's missing entries between an offset and its next entry.

        :param known: an offset up to which a loss of unknown size was reported before.
        :returns: the number of missing entries (None: unknown), and the offset up to which the number is unknown.
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
        """Return the gap for a place that does not belong to this log. Return None if the place belongs to it."""
        end = self.end
        if after.epoch != end.epoch:
            # If an older log was restored, it is unknown which of its entries the reader has seen.
            return Gap("epoch", None, end)
        if after.offset > end.offset:
            return Gap("ahead", None, end)
        nonce = self._nonce(after.offset)
        if nonce is not None and nonce != after.nonce:  # another entry was written at this offset
            return Gap("fork", None, end)
        if nonce is None and self._nonces is not None and after.offset > self._begin.offset:
            return Gap("trimmed", None, self._before_next(after.offset, None))
        return None

    def _nonce(self, offset: int) -> str | None:
        """Return the nonce of the entry at an offset; None if it was forgotten."""
        if (entry := self._entries.get(offset)) is not None:
            return entry.position.nonce
        if (entry := self._entries.get(offset + 1)) is not None:
            return entry.previous
        if offset == self.end.offset:
            return self.end.nonce
        if offset == self._begin.offset:
            return self._begin.nonce
        return None if self._nonces is None else self._nonces.get(offset)

    def _at(self, offset: int) -> Position:
        return Position(self.end.epoch, offset, GENESIS, self.end.partition)
