"""Reader: one connection's place in the log, and what it is to be sent from there on."""

from __future__ import annotations

import collections
import json
from typing import NamedTuple

from ssehub.events import Message
from ssehub.log import Gap, Interest, Page, Place, Readable
from ssehub.server.page_cache import CHUNK, Chunk, PageCache
from ssehub.server.start_position import Found

#: A comment, the smallest chunk there is: servers do not send an empty one.
HEARTBEAT = b":\n\n"


class _Private(NamedTuple):
    data: bytes
    #: The place in the log after which it comes; None for at once.
    after: Place | None


class Reader:
    """Reads the log on for one connection.

    There is no queue of messages: live delivery, replay and catching up are the same reading. Only messages that are in
    no log, those for this connection alone, wait here. Only :meth:`add_private` and :meth:`invalidate` may be called
    from other threads than the one that delivers.

    :param log: what the members of its zones read.
    :param interest: what it reads of it.
    :param session: the connection's session id.
    :param start: where to begin.
    :param max_replay: messages that may be caught up on; None for any number.

    :ivar place: what comes before it was sent, or is addressed to others.
    :ivar told: the place that the client would come back with; None if it would come back with another id, or without.
    """

    __slots__ = (
        "_cache", "_covered", "_gap", "_known", "_log", "_max_replay", "_private", "interest", "invalid", "level",
        "messages", "place", "sent", "session", "told",
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
        #: How many messages were taken last, and when the oldest of them was sent (seconds since 1970; 0: unknown).
        self.messages: int = 0
        self.sent: float = 0.0
        #: Whether nothing came after what was taken last.
        self.level: bool = False
        #: Whether the log may have been rewritten, so that the place has to be judged anew.
        self.invalid: bool = False
        self._log = log
        self._cache = cache
        self._gap = start.gap
        #: A place up to which missing messages were reported; and up to which the gap that waits here reports them.
        self._known = start.known
        self._covered: Place | None = None
        self._max_replay = max_replay
        self._private: collections.deque[_Private] | None = None

    @property
    def log(self) -> Readable:
        """What it reads."""
        return self._log

    @property
    def private(self) -> int:
        """The number of messages that wait here because they are in no log."""
        return len(self._private) if self._private else 0

    @property
    def lag(self) -> int:
        """The number of messages of the log that it has yet to take."""
        return 0 if self._log.is_at_end(self.place) else self._log.count(self.place, self.interest)

    def add_private(self, data: bytes, after: Place | None) -> None:
        """Add a message that is in no log, to come after a place in the log; None for at once.

        One thread at a time may do so.
        """
        if self._private is None:
            self._private = collections.deque()
        self._private.append(_Private(data, after))

    def invalidate(self) -> None:
        """Judge the place anew before the next sleep. Any thread may call this."""
        self.invalid = True

    def is_level(self) -> bool:
        """Return whether there is nothing to take. It never blocks."""
        if self._gap or self._private or self.invalid:
            return False
        return not self.lag

    def take(self) -> bytes | Gap:
        """Take what is to be sent now, as one chunk; empty if there is nothing.

        :returns: a gap, if messages are missing: fire the hook, then call :meth:`report`.
        :raises LogError: if the log cannot be read.
        """
        parts: list[bytes] = []
        size = self.messages = 0
        self.sent = 0.0
        self.level = False
        while size < CHUNK:
            found = self._next()
            if isinstance(found, Gap):
                if parts:
                    break  # it stands there for the next time
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
        """Return the place the stream begins at; None while a gap has to be reported first."""
        if self._gap:
            return None
        self.told = self.place
        return str(self.place)

    def heartbeat(self) -> bytes:
        """Tell a quiet client how far the log has moved on with messages to others, or send a comment."""
        if self.told == self.place:
            return HEARTBEAT
        self.told = self.place
        # Firefox ignores an id without data, so it is an event; its name keeps it from the application's handlers.
        return Message(".", "ssehub.cursor", id=str(self.place)).encode()

    def report(self, gap: Gap) -> bytes:
        """Go on after a gap, and return the event that reports it."""
        self._gap, self._known, self._covered = None, self._covered, None
        self.place = self.told = gap.place
        what = json.dumps({"reason": gap.reason, "missed": gap.missed})
        return Message(what, "ssehub.gap", id=str(gap.place)).encode()

    def _next(self) -> Chunk | Gap | _Private | None:
        """Return what comes next: of the log, or a private message once its turn has come."""
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
        # Level with the log. If the log is not the one the message was to come after, it comes now.
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

    def _too_far(self) -> Gap | None:
        if self._max_replay is None:
            return None
        missed = self.lag
        if missed <= self._max_replay or self._log.read(self.place, 0, self.interest, None, self._known).gap:
            return None  # what is missing is reported first
        return Gap("too_far", missed, self._log.end())
