"""Holdings: the entries that a process holds of a log, and which of them are dropped when there are too many."""

from __future__ import annotations

import collections
import threading
import time

from ssehub.log.index import Index
from ssehub.log.nonces import Nonces
from ssehub.log.packet import Command, Entry
from ssehub.log.position import Position


class Holdings:
    """The newest entries of one epoch of one partition. :class:`~ssehub.log.history.History` adds the read methods.

    Safe to use from any thread; never blocks for long.

    :param size: the maximum number of entries to hold.
    :param ttl: seconds that an entry is held; None for no limit.
    :param end: the place after which the first entry is added. Earlier entries are unknown.
    :param zone_size: the newest entries of each channel that are protected from being dropped; None for no protection.
    :param can_fork: whether the log can be rolled back and rewritten, so that nonces have to be compared.
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
        #: The entries by offset, oldest first.
        self._entries: collections.OrderedDict[int, Entry] = collections.OrderedDict()
        #: When each entry was added (``time.monotonic()``). Empty if there is no ``ttl``.
        self._times: dict[int, float] = {}
        self._chosen_ids: dict[str, int] = {}
        #: The entries whose packets have a key, by :attr:`~ssehub.Packet.once`.
        self._keyed: dict[str, int] = {}
        self._index = Index(size, end.offset)
        #: The offsets of entries that are not protected, because their channel has ``zone_size`` newer entries.
        self._spare: collections.deque[int] = collections.deque()
        #: The largest offset of a dropped entry.
        self._dropped_to = end.offset
        #: The nonces of the entries so far, also of dropped ones; None if nonces do not have to be compared.
        self._nonces: Nonces | None = Nonces(end.offset + 1) if can_fork else None

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, because a thread of the parent may have held it at the fork."""
        self._lock = threading.Lock()

    def keep(self, entry: Entry, age: float = 0.0) -> None:
        """Add an entry at the end, and drop an old entry if there are too many.

        :param age: how long the entry has been in the log, in seconds.
        """
        with self._lock:
            self._add(entry, age)
            self._advance(entry.position)
            if len(self._entries) > self._size:
                self._drop_one()
            self._expire()

    def restore(self, entry: Entry, age: float = 0.0) -> None:
        """Add an entry from before the history's beginning. Call it before :meth:`keep`, oldest entry first."""
        with self._lock:
            self._add(entry, age)

    def keep_dropped(self, entry: Entry) -> None:
        """Add an entry at the end that the log has dropped. Readers get a gap for it."""
        with self._lock:
            self._add(entry, 0.0)
            self._advance(entry.position)
            self._drop(entry.position.offset)

    def clear(self) -> None:
        """Drop all entries. The end stays where it is."""
        with self._lock:
            while self._entries:
                self._drop(next(iter(self._entries)))

    # The methods below run under the lock.

    def _add(self, entry: Entry, age: float) -> None:
        offset = entry.position.offset
        self._entries[offset] = entry
        if not isinstance(entry.packet, Command):
            self._put(entry, offset)
        if self._ttl is not None:
            self._times[offset] = time.monotonic() - age
        if entry.packet.message.id:
            self._chosen_ids[entry.id] = offset
        if entry.packet.key is not None and (once := entry.packet.once):
            self._keyed[once] = offset

    def _advance(self, position: Position) -> None:
        self.end = position
        if self._nonces is not None:
            self._nonces.append(position.nonce)

    def _put(self, entry: Entry, offset: int) -> None:
        channel = self._index.put(entry.packet, offset)
        if self._zone_size is not None and len(channel.held) > self._zone_size:
            self._spare.append(channel.held.from_end(self._zone_size))
            while self._spare[0] not in self._entries:
                self._spare.popleft()

    def _expire(self) -> None:
        if self._ttl is not None:
            limit = time.monotonic() - self._ttl
            while self._times and self._times[oldest := next(iter(self._entries))] < limit:
                self._drop(oldest)

    def _drop_one(self) -> None:
        """Drop the oldest entry that is not protected; if all are protected, the oldest one."""
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
        if entry.packet.key is not None and (once := entry.packet.once) and self._keyed.get(once) == offset:
            del self._keyed[once]
        if not isinstance(entry.packet, Command):
            self._index.drop(entry.packet, offset)
