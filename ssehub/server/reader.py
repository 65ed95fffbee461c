"""Reader: the place of one connection in the log. It reads the log from there.

There is no queue of messages: live delivery, replay after a reconnection, and catching up of a slow client are the same
reading. Only *private messages* are queued. These are sent to one connection with ``connection.send``, and are not in
the log.
"""

from __future__ import annotations

import collections
import json
from typing import NamedTuple

from ssehub.events import Message
from ssehub.log import Gap, Interest, Page, Place, Readable
from ssehub.log.production import Ending
from ssehub.server.page_cache import CHUNK, Chunk, PageCache
from ssehub.server.start_position import Found

#: A comment, the smallest possible chunk. Servers do not send an empty chunk.
HEARTBEAT = b":\n\n"


class _Private(NamedTuple):
    data: bytes
    #: Send the message after this place in the log; None: at once.
    after: Place | None


class Reader:
    """Reads the log for one connection.

    One thread at a time may use a reader. Only :meth:`add_private` and :meth:`invalidate` may be called from other
    threads.

    :param log: the view of the log for the connection's zones.
    :param interest: which messages the connection reads.
    :param session: the connection's session id.
    :param start: where to begin.
    :param max_replay: the maximum number of messages that a client may be behind; None for no limit.

    :ivar place: the reader's place in the log. All messages before it were read, or are addressed to others.
    :ivar told: the place of the last cursor that was sent to the client, with which it would come back; None if the
        client has another event id, or none.
    """

    __slots__ = (
        "_cache", "_covered", "_gap", "_known", "_log", "_max_replay", "_private", "ended", "interest", "invalid",
        "level", "messages", "place", "sent", "session", "told",
    )  # fmt: skip

    def __init__(
        self,
        log: Readable,
        cache: PageCache,
        interest: Interest,
        session: str,
        start: Found,
        max_replay: int | None,
    ) -> None:
        self.interest: Interest = interest
        self.session: str = session
        self.place = start.place
        self.told: Place | None = None
        #: The number of messages in the result of the last `take`, and when the oldest of them was sent (seconds since
        #: 1970; 0: unknown).
        self.messages: int = 0
        self.sent: float = 0.0
        #: Whether the last `take` reached the end of the log.
        self.level: bool = False
        #: Whether the log may have been rolled back or replaced, so that the place has to be checked again.
        self.invalid: bool = False
        #: Whether the end of the only zone's production was read, so that nothing more is to be sent.
        self.ended: bool = False
        self._log = log
        self._cache = cache
        self._gap = start.gap
        #: The place up to which missing messages were reported, and the place up to which the current gap reports them.
        self._known = start.known
        self._covered: Place | None = None
        self._max_replay = max_replay
        self._private: collections.deque[_Private] | None = None

    @property
    def log(self) -> Readable:
        """The view of the log that is read."""
        return self._log

    @property
    def private(self) -> int:
        """The number of queued private messages."""
        return len(self._private) if self._private else 0

    @property
    def lag(self) -> int:
        """The number of messages in the log that were not read yet."""
        return 0 if self._log.is_at_end(self.place) else self._log.count(self.place, self.interest)

    def add_private(self, data: bytes, after: Place | None) -> None:
        """Queue a private message. Only one thread at a time may call this.

        :param after: send it after this place in the log; None: at once.
        """
        if self._private is None:
            self._private = collections.deque()
        self._private.append(_Private(data, after))

    def invalidate(self) -> None:
        """Check the place again at the next `take`. Any thread may call this."""
        self.invalid = True

    def is_level(self) -> bool:
        """Return whether there is nothing to send. Never blocks."""
        if self._gap or self._private or self.invalid:
            return False
        return not self.lag

    def take(self) -> bytes | Gap:
        """Return what is to be sent now, as one chunk. It is empty if there is nothing to send.

        :returns: if messages are missing, a gap instead. The caller fires the hook ``on_gap`` and calls :meth:`report`.
        :raises LogError: if the log cannot be read.
        """
        parts: list[bytes] = []
        size = self.messages = 0
        self.sent = 0.0
        self.level = False
        while size < CHUNK and not self.ended:
            found = self._next()
            if isinstance(found, Gap):
                if parts:
                    break  # the next call returns the gap
                return found
            if isinstance(found, Chunk):
                self._pass(found)
                self.level = found.level and not self._private
            elif found is None:
                self.level = True
                break
            parts.append(found.data)
            size += len(found.data)
            if self.level:
                break
        return b"".join(parts)

    def cursor(self) -> str | None:
        """Return the cursor of the place where the stream begins; None if a gap has to be reported first."""
        if self._gap:
            return None
        self.told = self.place
        return str(self.place)

    def heartbeat(self) -> bytes:
        """Return a heartbeat: a comment or, if the log has new messages for others, an event with a newer cursor."""
        if self.told == self.place:
            return HEARTBEAT
        self.told = self.place
        # The event has data, because Firefox ignores an id without data. The application has no handlers for this type.
        return Message(".", "ssehub.cursor", id=str(self.place)).encode()

    def report(self, gap: Gap) -> bytes:
        """Move the place to the end of a gap, and return the event that reports the gap to the client."""
        self._gap, self._known, self._covered = None, self._covered, None
        self.place = self.told = gap.place
        what = json.dumps({"reason": gap.reason, "missed": gap.missed})
        return Message(what, "ssehub.gap", id=str(gap.place)).encode()

    def _next(self) -> Chunk | Gap | _Private | None:
        """Return what is to be sent next: a chunk of the log, a gap or a private message; None if there is nothing."""
        gap = self._gap or self._too_far()
        if gap:
            return gap
        upto = None
        if self._private:
            upto = self._private[0].after
            if upto is None or not self.place.distance_to(upto):
                return self._private.popleft()
        invalid, self.invalid = self.invalid, False
        if invalid or not self._log.is_at_end(self.place):
            found = self._cache.next(self._log, self.place, self.interest, self.session, upto, self._known, invalid)
            if isinstance(found, Page):
                self._gap, self._covered = found.gap, found.place
                return self._gap
            if found.after != self.place:
                self._forget_known(found.after)
                return found
        # The end of the log is reached. A private message may still wait for a place, if the log was replaced; send it.
        return self._private.popleft() if self._private else None

    def _forget_known(self, place: Place) -> None:
        if self._known is not None and not place.distance_to(self._known):
            self._known = None

    def _pass(self, chunk: Chunk) -> None:
        self.place = chunk.after
        self.messages += chunk.messages
        if chunk.first is not None and not self.sent:
            self.sent = chunk.first.sent
        if chunk.last is not None:
            self.told = chunk.last.cursor
            packet = chunk.last.packet
            if packet.__class__ is Ending and self.interest.zones == (packet.zone,):
                self.ended = True

    def _too_far(self) -> Gap | None:
        if self._max_replay is None:
            return None
        missed = self.lag
        if missed <= self._max_replay or self._log.read(self.place, 0, self.interest, None, self._known).gap:
            return None  # if messages are missing as well, that gap is reported first
        return Gap("too_far", missed, self._log.end())
