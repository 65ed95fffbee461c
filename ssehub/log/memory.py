"""MemoryLog: the log of a single process, bounded by number and age."""

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
    """Keep the newest entries in memory.

    Each process has a log of its own, and each start of a process begins a new epoch: a client that comes back after
    a restart receives a gap event.

    :param size: entries kept at most, in all zones together. When there are more, the oldest is dropped.
    :param ttl: seconds an entry is kept; None for no limit of age.
    :param zone_size: the newest entries of each zone that are protected: while any zone has more, only its oldest are
        dropped, so that a busy zone does not push out the history of a quiet one. Messages to one client, and those to
        everyone, are protected likewise. ``size`` remains the bound of all: when every zone is within its
        ``zone_size``, the oldest entry is dropped whatever its zone, because requests can invent zones. Choose
        ``size`` at least ``zone_size`` times the number of zones you want to protect. None: no protection.
    :raises ValueError: if a bound is not positive, or ``zone_size`` is larger than ``size``.
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
        """Make what belongs to one process. The order of entries is that of the lock.

        In a forked child, a log that is still empty takes a new epoch: four workers forked from one parent are four
        logs.
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
        """The entries that are held."""
        self._begin()
        assert self._own is not None
        return self._own

    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Command]], None]) -> None:
        """Begin to deliver; see :meth:`Log.start`.

        :raises LogError: if a hub of this process uses this log.
        """
        self._begin()
        with self._lock:
            if self._deliver is not None:
                raise LogError("this log belongs to another hub already; give each hub a log of its own")
            self._deliver = deliver

    def append(self, packet: Packet) -> Receipt:
        """Add a packet and deliver it before returning; see :meth:`Log.append`."""
        self._begin()
        body, nonce = packet.encode(), new_nonce()
        with self._lock:
            if self._deliver is None:
                raise LogError("the log is not started, or closed")
            history = self.history
            end = history.end
            entry = Entry(packet, Position(end.epoch, end.offset + 1, nonce), end.nonce, body, time.time())
            history.keep(entry)
            queued = self._deliver(entry)
            self._delivered = entry.position
        return Receipt(entry.id, queued)

    def locate(self, last_event_id: str) -> Position | Gap:
        """Find the place an id names; see :meth:`Log.locate`. An id chosen twice means its newest entry."""
        place = Position.parse(last_event_id) or self.history.find(last_event_id)
        return place or Gap("bad_id", None, self.history.end)

    def end(self) -> Position:
        """Return the place of the newest entry that was delivered."""
        self._begin()
        return self._delivered

    def close(self, timeout: float | None = None) -> None:
        """Accept no more packets; reading still works, and :meth:`start` opens the log again."""
        self._begin()
        with self._lock:
            self._deliver = None


def _new_epoch() -> int:
    # The clock alone might give workers that start together the same epoch.
    return time.time_ns() & ~0xFF | secrets.randbits(8)
