"""MemoryLog: the log of a single process, with a limit for the number and the age of its entries."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence

from ssehub.exceptions import LogError
from ssehub.log.base import Gap, Log
from ssehub.log.held import Held
from ssehub.log.history import History
from ssehub.log.packet import Command, Entry, Packet, Receipt
from ssehub.log.position import GENESIS, Position, new_nonce
from ssehub.process_local import ProcessLocal


class MemoryLog(ProcessLocal, Held, Log):
    """A log in the memory of one process. It keeps the newest entries.

    Each process has its own log, and begins a new epoch when it starts. A client that reconnects after a restart
    receives a gap event.

    :param size: the maximum number of entries to keep, in all zones together. If there are more, the oldest is dropped.
    :param ttl: seconds that an entry is kept; None for no limit.
    :param zone_size: the number of newest entries of each zone that are protected, so that a busy zone does not push
        out the entries of a quiet one. As long as any zone has more entries than this, only the oldest entries of such
        zones are dropped. The messages to each client, and the messages to everyone, are protected in the same way. If
        no zone has more entries than this, the oldest entry of all is dropped: ``size`` is always the limit, because
        requests can invent zones. Choose ``size`` at least ``zone_size`` times the number of zones to protect. None: no
        protection.
    :raises ValueError: if a number is not positive, or ``zone_size`` is larger than ``size``.
    """

    def __init__(self, size: int = 10_000, ttl: float | None = None, zone_size: int | None = None) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        if ttl is not None and not ttl > 0:
            raise ValueError(f"ttl must be a positive number of seconds, not {ttl}")
        if zone_size is not None and not 1 <= zone_size <= size:
            raise ValueError(f"zone_size must be 1 to size, which is {size}, not {zone_size}")
        self._bounds = size, ttl, zone_size
        self._own: History | None = None
        super().__init__()

    def _renew(self) -> None:
        """Make the objects of this process.

        In a forked child, a log that is still empty begins a new epoch: four workers that were forked from one parent
        have four different logs.
        """
        self._lock = threading.Lock()
        self._deliver: Callable[[Entry], int] | None = None
        if self._own is None or not self._own.end.offset:
            self._begin_epoch()
        else:
            self._own.renew_lock()

    def _begin_epoch(self) -> None:
        size, ttl, zone_size = self._bounds
        self._own = History(size, ttl, Position(_new_epoch(), 0, GENESIS), zone_size)
        self._delivered = self._own.end

    @property
    def history(self) -> History:
        """The history: the entries that this process holds."""
        self._begin()
        assert self._own is not None
        return self._own

    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Command]], None]) -> None:
        """Start to deliver entries; see :meth:`Log.start`.

        :raises LogError: if another hub of this process uses this log.
        """
        self._begin()
        with self._lock:
            if self._deliver is not None:
                raise LogError("this log belongs to another hub already; give each hub its own log")
            self._deliver = deliver

    def append(self, packet: Packet) -> Receipt:
        """Add a packet, and deliver it before returning; see :meth:`Log.append`."""
        self._begin()
        body, nonce = packet.encode(), new_nonce()
        with self._lock:
            if self._deliver is None:
                raise LogError("the log is not started, or closed")
            history = self.history
            if packet.key is not None and (first := history.first_of(packet)) is not None:
                return Receipt(first.id, 0, first.packet.message)
            end = history.end
            entry = Entry(packet, Position(end.epoch, end.offset + 1, nonce), end.nonce, body, time.time())
            history.keep(entry)
            queued = self._deliver(entry)
            self._delivered = entry.position
        return Receipt(entry.id, queued)

    def locate(self, last_event_id: str) -> Position | Gap:
        """Find the place of an id; see :meth:`Log.locate`. If several entries have the id, find the newest."""
        place = Position.parse(last_event_id) or self.history.find(last_event_id)
        return place or Gap("bad_id", None, self.history.end)

    def end(self) -> Position:
        """Return the place of the newest delivered entry."""
        self._begin()
        return self._delivered

    def close(self, timeout: float | None = None) -> None:
        """Stop accepting packets. The entries can still be read, and :meth:`start` opens the log again."""
        self._begin()
        with self._lock:
            self._deliver = None


def _new_epoch() -> int:
    # The random bits tell apart workers that start at the same time.
    return time.time_ns() & ~0xFF | secrets.randbits(8)
