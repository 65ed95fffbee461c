"""Backlog: what one connection is due, pended as it comes or read on from the log."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence

from ssehub.log import Entry, Gap, Log, Packet, Position
from ssehub.server.pace import Pace
from ssehub.wire import Message

#: A comment, the smallest thing that is not nothing: an empty chunk is not sent by any server.
HEARTBEAT = b":\n\n"
#: Bytes joined into one write. Above 64 KiB a write gains nothing more, and a thousand of them are memory.
CHUNK = 64 * 1024
#: Entries read from the log at a time by a connection that is behind.
PAGE = 256


class Backlog:
    """Hold a connection's place in the log, and what it is due from there on.

    Entries are pended as they come. When too many are, they are let go again, because the log has them: the backlog is
    *behind*, and its reader reads the log on from where it stands until it is level. A new connection begins behind.

    Pending takes the connection's lock, given here and shared so that pending and standing in line are one step;
    the methods that say so are called under it. Reading belongs to one thread, the connection's.

    :param lock: the connection's.
    :param place: where to start, or the gap to tell first.
    :param wanted: tells what of the log is this connection's.
    :param on_gap: called before a gap is told, in the reading thread, without a lock.
    """

    def __init__(
        self,
        log: Log,
        pace: Pace,
        lock: threading.Lock,
        place: Position | Gap,
        wanted: Callable[[Packet], bool],
        on_gap: Callable[[Gap], None],
    ) -> None:
        self.behind = True
        #: Messages taken, gaps told, times fallen behind.
        self.delivered = self.gaps = self.fell_behind = 0
        self._log = log
        self._pace = pace
        self._lock = lock
        self._wanted = wanted
        self._on_gap = on_gap
        self._pending: list[Entry | bytes] = []
        self._private = 0  # how many of the pending are in no log
        self._gap = place if isinstance(place, Gap) else None
        self._position = place.position if isinstance(place, Gap) else place
        #: The position the client would come back with; None if it would come back with another id, or none.
        self._told: Position | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def pend(self, entry: Entry) -> None:
        """Add an entry, or fall behind. Under the lock; in the order of the log."""
        if self.behind:
            return
        self._pending.append(entry)
        if len(self._pending) - self._private > self._pace.max_pending:
            self.fell_behind += 1
            self._fall_behind()

    def pend_private(self, data: bytes) -> bool:
        """Add what is in no log. Under the lock.

        :returns: False if too much of that is pending already.
        """
        if self._private >= self._pace.max_pending:
            return False
        self._private += 1
        self._pending.append(data)
        return True

    def has_something(self) -> bool:
        """Tell whether reading would give something, or at least has something to find out. Under the lock."""
        return bool(self._pending) or self.behind

    def take(self) -> bytes:
        """Take what is due now, as one chunk; empty if nothing is."""
        while True:
            with self._lock:
                # Register, then read, then skip: from here on entries are pended, whatever the log is read up to.
                pending, self._pending = self._pending, []
                late, self.behind = self.behind, False
                self._private = 0
            if not late:
                return self._join(pending)
            chunk = b"".join(item for item in pending if isinstance(item, bytes)) + self._read_on()
            if chunk or not self.behind:  # else that was a page of other people's traffic
                return chunk

    def cursor(self) -> str | None:
        """Return the place the stream begins at; None while a gap has to be told first."""
        if self._gap:
            return None
        self._told = self._position
        return str(self._position)

    def heartbeat(self) -> bytes:
        """Move a quiet client's cursor past other people's traffic, or just make a sound."""
        tail = self._log.tail()
        with self._lock:
            # All up to the tail has been pended that is ours; if nothing is pending now, all of that was taken.
            if not self.has_something() and tail.offset > self._position.offset:
                self._position = tail
        if self._told == self._position:
            return HEARTBEAT
        self._told = self._position
        # Firefox ignores an id without data, so it is an event; its name keeps it from the application's handlers.
        return Message(".", "ssehub.cursor", id=str(self._position)).encode()

    def _join(self, pending: Sequence[Entry | bytes]) -> bytes:
        parts: list[bytes] = []
        size = 0
        for index, item in enumerate(pending):
            if size >= CHUNK:
                self._put_back(pending[index:])
                break
            if isinstance(item, bytes):
                parts.append(item)
            elif not self._is_passed(item.position):
                parts.append(self._pass(item))
            else:
                continue
            size += len(parts[-1])
        return b"".join(parts)

    def _put_back(self, rest: Sequence[Entry | bytes]) -> None:
        """Return what did not fit into the chunk to the head of what is pending."""
        with self._lock:
            self._pending[:0] = rest
            self._private += sum(isinstance(item, bytes) for item in rest)
            if self.behind:
                self._fall_behind()

    def _read_on(self) -> bytes:
        """Read a page of the log, or tell the gap that stands there."""
        gap, self._gap = self._gap, None
        page = self._log.read(self._position, PAGE)
        gap = gap or page.gap or self._too_far()
        if gap:
            self._stay_behind()
            return self._tell(gap)
        parts: list[bytes] = []
        size = 0
        for index, entry in enumerate(page.entries):
            if not self._wanted(entry.packet):
                self._position = entry.position
                continue
            parts.append(self._pass(entry))
            size += len(parts[-1])
            if size >= CHUNK and index + 1 < len(page.entries):
                self._stay_behind()
                return b"".join(parts)
        if not page.level:
            self._stay_behind()
        return b"".join(parts)

    def _stay_behind(self) -> None:
        with self._lock:
            self._fall_behind()

    def _fall_behind(self) -> None:
        """Let go of what the log has too; under the lock."""
        self.behind = True
        self._pending = [item for item in self._pending if isinstance(item, bytes)]

    def _is_passed(self, position: Position) -> bool:
        return position.offset <= self._position.offset and position.epoch == self._position.epoch

    def _pass(self, entry: Entry) -> bytes:
        """Move on past an entry that is ours."""
        self._position = entry.position
        self._told = entry.position if entry.packet.message.id is None else None
        self.delivered += 1
        return entry.data

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
