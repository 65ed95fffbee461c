"""PageCache: what comes next in the log for the members of some zones, joined once and shared by all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from ssehub.log import Entry, Interest, Page, Place, Readable

#: Bytes joined into one write. Above 64 KiB a write gains nothing more, and a thousand of them are memory.
CHUNK = 64 * 1024
#: Entries read from the log at a time.
PAGE = 256
#: Chunks kept for other readers at the same place; when there are more, all are forgotten.
_KEPT = 64
#: Seconds after which a chunk is read from the log anew: what the log has dropped is not sent for long.
FRESH = 1.0


class Chunk(NamedTuple):
    """A stretch of the log, encoded as one reader is to have it."""

    data: bytes
    #: The number of messages in it.
    messages: int
    #: The place it reaches; the place it was asked for if there is nothing new.
    after: Place
    #: The first and the last of those messages.
    first: Entry | None
    last: Entry | None
    #: Whether it reaches the end of the log.
    level: bool
    #: The sessions that must not get all of it.
    excluded: frozenset[str] = frozenset()


class PageCache:
    """Reads a log for many connections that are at the same place and want the same.

    Safe to use from any thread. Chunks never change, so they are shared without a lock.
    """

    def __init__(self) -> None:
        #: Each with the time it was made (``time.monotonic()``).
        self._chunks: dict[tuple[Place, tuple[str, ...]], tuple[float, Chunk]] = {}
        self._cleared = 0

    def clear(self) -> None:
        """Forget what was read: the log is not what it was."""
        self._cleared += 1
        self._chunks.clear()

    def next(
        self,
        log: Readable,
        after: Place,
        interest: Interest,
        session: str,
        upto: Place | None = None,
        known: Place | None = None,
        fresh: bool = False,
    ) -> Chunk | Page:
        """Return the next stretch after a place for one reader, or the page that has the gap which stands there.

        :param log: what the members of these zones read.
        :param session: the reader's session, from which messages may be withheld.
        :param upto: a place not to read past; None for the end.
        :param known: a place up to which missing messages were reported already.
        :param fresh: True to read the log in any case: it may not be what it was.
        :raises LogError: if the log cannot be read.
        """
        if upto is None and known is None and not fresh and not log.is_addressed(interest, after):
            chunk = self._shared(log, after, interest.shared)
            # Asked again, because more may have come: whatever comes before the chunk's end is in the log by now.
            if not isinstance(chunk, Chunk) or session in chunk.excluded:
                return self._read(log, after, interest, session, upto, known)
            if not log.is_addressed(interest, after, chunk.after):
                return chunk
        return self._read(log, after, interest, session, upto, known)

    def _shared(self, log: Readable, after: Place, interest: Interest) -> Chunk | Page:
        """Return the next stretch that every member of some zones gets, but for those excluded."""
        key = after, interest.zones
        made, kept = self._chunks.get(key, (0.0, None))
        if kept is not None and time.monotonic() - made < FRESH:
            return kept
        cleared = self._cleared
        chunk = read_chunk(log, after, interest)
        if isinstance(chunk, Chunk) and chunk.messages and cleared == self._cleared:
            if len(self._chunks) >= _KEPT:
                self._chunks.clear()
            # To those that take it later more may have come meanwhile.
            self._chunks[key] = time.monotonic(), chunk._replace(level=False)
        return chunk

    def _read(
        self, log: Readable, after: Place, interest: Interest, session: str, upto: Place | None, known: Place | None
    ) -> Chunk | Page:
        """Read for one reader alone."""
        page = log.read(after, PAGE, interest, upto, known)
        if page.gap:
            return page
        mine = [entry for entry in page.entries if session not in entry.packet.exclude]
        return _chunk(mine, page.place, page.level)


def read_chunk(log: Readable, after: Place, interest: Interest, upto: Place | None = None) -> Chunk | Page:
    """Read the next stretch that every member of some zones gets, but for those excluded; or the page with the gap.

    :param upto: a place not to read past; None for the end.
    :raises LogError: if the log cannot be read.
    """
    page = log.read(after, PAGE, interest, upto)
    return page if page.gap else _chunk(page.entries, page.place, page.level)


def _chunk(entries: Sequence[Entry], reached: Place, level: bool) -> Chunk:
    fitting = _fitting(entries)
    if fitting < len(entries):
        entries = entries[:fitting]
        reached, level = entries[-1].place, False
    if not entries:
        return Chunk(b"", 0, reached, None, None, level)
    excluded = frozenset[str]().union(*(entry.packet.exclude for entry in entries if entry.packet.exclude))
    data = b"".join([entry.data for entry in entries])
    return Chunk(data, len(entries), reached, entries[0], entries[-1], level, excluded)


def _fitting(entries: Sequence[Entry]) -> int:
    """Return how many entries go into one chunk: at least one, and the last may reach over."""
    size = 0
    for count, entry in enumerate(entries, 1):
        size += len(entry.data)
        if size >= CHUNK:
            return count
    return len(entries)
