"""Reader: one connection's place in the log, and what it is due from there on."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable
from typing import NamedTuple

from ssehub.log import Entry, Gap, Place, Position, Readable
from ssehub.server.pages import CHUNK, PAGE, Pages, Piece
from ssehub.wire import Message

#: A comment, the smallest thing that is not nothing: an empty chunk is not sent by any server.
HEARTBEAT = b":\n\n"


class _Private(NamedTuple):
    data: bytes
    #: The place in the log after which it comes; None for at once.
    after: Place | None


class Reader:
    """Read the log on for one connection.

    There is no queue of messages: live delivery, replay and catching up are the same reading. What is in no log, the
    messages for this connection alone, waits here. Only :meth:`add_private` may be called from other threads than the
    connection's.

    :param log: what the members of its zones read.
    :param place: where to start, or the gap to tell first.
    :param zones: the connection's zones.
    :param wanted: tells what of the log is the connection's.
    :param on_gap: called before a gap is told.
    :param max_replay: entries that may be caught up on; None for any number.
    """

    def __init__(
        self,
        log: Readable,
        pages: Pages,
        place: Place | Gap,
        zones: tuple[str, ...],
        wanted: Callable[[Entry], bool],
        on_gap: Callable[[Gap], None],
        max_replay: int | None,
    ) -> None:
        self.place = place.place if isinstance(place, Gap) else place
        #: Messages taken and gaps told.
        self.delivered = self.gaps = 0
        self._log = log
        self._pages = pages
        self._gap = place if isinstance(place, Gap) else None
        self._zones = zones
        self._wanted = wanted
        self._on_gap = on_gap
        self._max_replay = max_replay
        #: When the oldest message of what was last taken was sent (seconds since 1970); 0 if that is not known.
        self.sent = 0.0
        #: Whether the log may have changed behind its back.
        self.doubts = False
        self._private: collections.deque[_Private] = collections.deque()
        #: The position the client would come back with; None if it would come back with another id, or none.
        self._told: Place | None = None

    @property
    def private(self) -> int:
        """The number of messages that wait here because they are in no log."""
        return len(self._private)

    def add_private(self, data: bytes, after: Place | None) -> None:
        """Add what is in no log, to come after a place in the log; None for at once."""
        self._private.append(_Private(data, after))

    def doubt(self) -> None:
        """Judge the place anew before the next sleep. Any thread may call this."""
        self.doubts = True

    def skip_to(self, place: Position) -> None:
        """Go on from a place in one lane; what lies before it is known to be other people's."""
        for part in self.place.parts:
            if part.lane == place.lane and (place.offset > part.offset or place.epoch != part.epoch):
                self.place = self.place.put(place)

    def take(self) -> bytes:
        """Take what is due now, as one chunk; empty if nothing is."""
        parts: list[bytes] = []
        size, self.sent = 0, 0.0
        while size < CHUNK:
            piece = self._next()
            if isinstance(piece, Gap):
                return b"".join(parts) if parts else self._tell(piece)
            if isinstance(piece, Piece):
                self._pass(piece)
            elif piece is None:
                break
            parts.append(piece.data)
            size += len(piece.data)
        return b"".join(parts)

    def cursor(self) -> str | None:
        """Return the place the stream begins at; None while a gap has to be told first."""
        if self._gap:
            return None
        self._told = self.place
        return str(self.place)

    def heartbeat(self) -> bytes:
        """Tell a quiet client how far the log has moved on with other people's traffic, or just make a sound."""
        if self._told == self.place:
            return HEARTBEAT
        self._told = self.place
        # Firefox ignores an id without data, so it is an event; its name keeps it from the application's handlers.
        return Message(".", "ssehub.cursor", id=str(self.place)).encode()

    def _next(self) -> Piece | Gap | _Private | None:
        """Return what comes next: of the log, or what waits here once its turn has come."""
        gap = self._gap or self._too_far()
        if gap:
            return gap
        limit = PAGE
        if self._private:
            limit = self._distance_to(self._private[0].after)
            if not limit:
                return self._private.popleft()
        doubts, self.doubts = self.doubts, False
        if doubts or self._log.tail() != self.place:
            piece = self._pages.next(self._log, self.place, self._zones, self._wanted, min(limit, PAGE))
            if isinstance(piece, Gap) or piece.after != self.place:
                return piece
        # Level with the log; if that is another than the one it was to come after, it comes now.
        return self._private.popleft() if self._private else None

    def _distance_to(self, place: Place | None) -> int:
        """Return how many entries come before a place: in each lane that is still the one it was."""
        there = {part.lane: part for part in place.parts} if place else {}
        distance = 0
        for part in self.place.parts:
            other = there.get(part.lane, part)
            distance += max(0, other.offset - part.offset) if other.epoch == part.epoch else 0
        return distance

    def _pass(self, piece: Piece) -> None:
        self.place = piece.after
        self.delivered += piece.messages
        if piece.first is not None and not self.sent:
            self.sent = piece.first.sent
        if piece.last is not None:
            self._told = piece.last.place if piece.last.packet.message.id is None else None

    def _too_far(self) -> Gap | None:
        if self._max_replay is None:
            return None
        tail = self._log.tail()
        if tail.epoch != self.place.epoch:
            return None  # the read will tell
        missed = tail.offset - self.place.offset
        return Gap("too_far", missed, tail) if missed > self._max_replay else None

    def _tell(self, gap: Gap) -> bytes:
        self._gap = None
        self.place = self._told = gap.place
        self.gaps += 1
        self._on_gap(gap)
        what = json.dumps({"reason": gap.reason, "missed": gap.missed})
        return Message(what, "ssehub.gap", id=str(gap.place)).encode()
