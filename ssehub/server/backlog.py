"""Backlog: what one connection is due, pended as it comes or read on from the log."""

from __future__ import annotations

import collections
import json
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssehub.log import Entry, Gap, Log, Packet, Position
from ssehub.server.pace import Pace
from ssehub.wire import Message

#: A comment, the smallest thing that is not nothing: an empty chunk is not sent by any server.
HEARTBEAT = b":\n\n"
#: Bytes joined into one write. Above 64 KiB a write gains nothing more, and a thousand of them are memory.
CHUNK = 64 * 1024
#: Entries read from the log at a time by a connection that is behind.
PAGE = 256


class Private(NamedTuple):
    """Be pended like an entry, but for one connection alone and in no log."""

    data: bytes
    position: None = None


class Backlog:
    """Hold a connection's place in the log, and what it is due from there on.

    Entries are pended as they come. When too many are, they are let go again, because the log has them: the backlog is
    *behind*, and its reader reads the log on from where it stands until it is level. A new connection begins behind.

    Pending an entry takes no lock, because it is done for every connection and every message: a deque is appended to
    and popped from in one step. Entries are pended by one thread at a time, in the order of the log, and read by one
    thread, the connection's.

    :param place: where to start, or the gap to tell first.
    :param wanted: tells what of the log is this connection's.
    :param on_gap: called before a gap is told, in the reading thread, without a lock.
    """

    def __init__(
        self,
        log: Log,
        pace: Pace,
        place: Position | Gap,
        wanted: Callable[[Packet], bool],
        on_gap: Callable[[Gap], None],
    ) -> None:
        self.behind = True
        #: Messages taken, gaps told, times fallen behind.
        self.delivered = self.gaps = self.fell_behind = 0
        self._log = log
        self._pace = pace
        self._limit = pace.max_pending
        self._wanted = wanted
        self._on_gap = on_gap
        self._lock = threading.Lock()
        self._pending: collections.deque[Entry | Private] = collections.deque()
        self._private = 0
        self._gap = place if isinstance(place, Gap) else None
        self._position = place.position if isinstance(place, Gap) else place
        #: True while what was read from the log may be pended as well.
        self._overlap = False
        #: The position the client would come back with; None if it would come back with another id, or none.
        self._told: Position | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def pend(self, entry: Entry) -> None:
        """Add an entry, or fall behind."""
        if self.behind:
            return
        self._pending.append(entry)
        if len(self._pending) > self._limit:
            self._overflow()

    def pend_private(self, data: bytes) -> bool:
        """Add what is in no log. Any thread may.

        :returns: False if too much of that is pending already.
        """
        with self._lock:
            if self._private >= self._limit:
                return False
            self._private += 1
            self._pending.append(Private(data))
        return True

    def has_something(self) -> bool:
        """Tell whether taking would give something, or at least has something to find out."""
        return bool(self._pending) or self.behind

    def take(self) -> bytes:
        """Take what is due now, as one chunk; empty if nothing is."""
        while self.behind:
            # Register, then read, then skip. From here on entries are pended; what was pended before goes, because a
            # read that comes after gives it: an entry is in the log before it is pended.
            self.behind = False
            private = b"".join(item.data for item in self._drain() if item.position is None)
            chunk = private + self._read_on()
            if chunk:  # else that was a page of other people's traffic
                return chunk
        return self._join(self._drain())

    def cursor(self) -> str | None:
        """Return the place the stream begins at; None while a gap has to be told first."""
        if self._gap:
            return None
        self._told = self._position
        return str(self._position)

    def heartbeat(self) -> bytes:
        """Move a quiet client's cursor past other people's traffic, or just make a sound."""
        tail = self._log.tail()
        # All up to the tail that is ours has been pended; if nothing is pending now, all of that was taken.
        if not self.has_something() and tail.offset > self._position.offset:
            self._position = tail
        if self._told == self._position:
            return HEARTBEAT
        self._told = self._position
        # Firefox ignores an id without data, so it is an event; its name keeps it from the application's handlers.
        return Message(".", "ssehub.cursor", id=str(self._position)).encode()

    def _drain(self) -> list[Entry | Private]:
        with self._lock:
            self._private = 0
            return [self._pending.popleft() for _ in range(len(self._pending))]

    def _overflow(self) -> None:
        """Let go of what the log has too, if it is that which is too much."""
        with self._lock:
            if len(self._pending) - self._private <= self._limit:
                return
            self.behind = True
            self.fell_behind += 1
            private = [item for item in self._pending if item.position is None]
            self._pending.clear()
            self._pending.extend(private)

    def _join(self, items: list[Entry | Private]) -> bytes:
        """Make a chunk of what was pended; what does not fit goes back."""
        if self._overlap:
            items = [item for item in items if item.position is None or not self._is_passed(item.position)]
        fitting = _fitting(items)
        if fitting < len(items):
            self._put_back(items[fitting:])
            del items[fitting:]
        entries = [item for item in items if isinstance(item, Entry)]
        if entries:
            self._overlap = False
            self._pass(entries)
        return b"".join([item.data for item in items])

    def _put_back(self, rest: list[Entry | Private]) -> None:
        with self._lock:
            self._pending.extendleft(reversed(rest))
            self._private += sum(item.position is None for item in rest)

    def _read_on(self) -> bytes:
        """Read a page of the log, or tell the gap that stands there."""
        gap, self._gap = self._gap, None
        page = self._log.read(self._position, PAGE)
        self._overlap = True
        gap = gap or page.gap or self._too_far()
        if gap:
            self.behind = True
            return self._tell(gap)
        wanted = self._wanted
        entries = [entry for entry in page.entries if wanted(entry.packet)]
        fitting = _fitting(entries)
        whole = fitting == len(entries)
        self._pass(entries[:fitting])
        if whole and page.entries:  # others' traffic behind our last is passed as well
            self._position = page.entries[-1].position
        if not (whole and page.level):
            self.behind = True
        return b"".join([entry.data for entry in entries[:fitting]])

    def _is_passed(self, position: Position) -> bool:
        return position.offset <= self._position.offset and position.epoch == self._position.epoch

    def _pass(self, entries: Sequence[Entry]) -> None:
        """Move on past entries that are ours."""
        if entries:
            last = entries[-1]
            self._position = last.position
            self._told = last.position if last.packet.message.id is None else None
            self.delivered += len(entries)

    def _too_far(self) -> Gap | None:
        if self._pace.max_replay is None:
            return None
        tail = self._log.tail()
        missed = tail.offset - self._position.offset
        return Gap("too_far", missed, tail) if missed > self._pace.max_replay else None

    def _tell(self, gap: Gap) -> bytes:
        self._position = self._told = gap.position
        self.gaps += 1
        self._on_gap(gap)
        what = json.dumps({"reason": gap.reason, "missed": gap.missed})
        return Message(what, "ssehub.gap", id=str(gap.position)).encode()


def _fitting(items: Sequence[Entry | Private]) -> int:
    """Return how many of the items go into one chunk: at least one, and the last may reach over."""
    if sum([len(item.data) for item in items]) <= CHUNK:
        return len(items)
    size = 0
    for index, item in enumerate(items):
        size += len(item.data)
        if size >= CHUNK:
            return index + 1
    return len(items)
