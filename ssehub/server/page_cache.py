"""PageCache: encoded parts of the log, which connections at the same place with the same zones share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from ssehub.log import Entry, Interest, Page, Place, Readable
from ssehub.log.production import Ending

#: The number of bytes after which no further event is added to a chunk. Writes of more than 64 KiB are not faster, and
#: a thousand larger chunks would take much memory.
CHUNK = 64 * 1024
#: The maximum number of entries that are read from the log at a time.
PAGE = 256
#: The maximum number of chunks that are kept. When there are more, all are forgotten.
_KEPT = 64
#: Seconds after which a chunk is forgotten, so that entries that the log has dropped are not sent much longer.
FRESH = 1.0


class Chunk(NamedTuple):
    """Consecutive messages of the log, encoded for one or several readers."""

    data: bytes
    #: The number of messages in the chunk.
    messages: int
    #: The place of a reader after this chunk.
    after: Place
    #: The first and the last of the messages; None without messages.
    first: Entry | None
    last: Entry | None
    #: Whether the chunk reaches the end of the log.
    level: bool
    #: The sessions from which some of the messages must be withheld.
    excluded: frozenset[str] = frozenset()


class PageCache:
    """Reads a log for many connections. Connections at the same place with the same zones get the same chunk.

    Safe to use from any thread. Chunks are immutable, so they are shared without a lock.
    """

    def __init__(self) -> None:
        #: The chunks by place and zones, each with the time when it was made (``time.monotonic()``).
        self._chunks: dict[tuple[Place, tuple[str, ...]], tuple[float, Chunk]] = {}
        self._cleared = 0

    def clear(self) -> None:
        """Forget all chunks, because the log was rolled back or replaced."""
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
        """Return the next chunk for one reader. If messages are missing there, return a page with the gap instead.

        :param log: the view of the log for the reader's zones.
        :param after: the reader's place.
        :param interest: which messages the reader reads.
        :param session: the id of the reader's session. Messages that exclude this session are left out.
        :param upto: do not read past this place; None for the end.
        :param known: a place up to which missing messages were reported before.
        :param fresh: True to read the log in any case, because it may have been rolled back or replaced.
        :raises LogError: if the log cannot be read.
        """
        if upto is None and known is None and not fresh and not log.is_addressed(interest, after):
            chunk = self._shared(log, after, interest.shared)
            # Ask again: a message to this client may have come after the first check, and before the chunk's end.
            if not isinstance(chunk, Chunk) or session in chunk.excluded:
                return self._read(log, after, interest, session, upto, known)
            if not log.is_addressed(interest, after, chunk.after):
                return chunk
        return self._read(log, after, interest, session, upto, known)

    def _shared(self, log: Readable, after: Place, interest: Interest) -> Chunk | Page:
        """Return the next chunk that all members of some zones share, or a page with the gap."""
        key = after, interest.zones
        made, kept = self._chunks.get(key, (0.0, None))
        if kept is not None and time.monotonic() - made < FRESH:
            return kept
        cleared = self._cleared
        chunk = read_chunk(log, after, interest)
        if isinstance(chunk, Chunk) and chunk.messages and cleared == self._cleared:
            if len(self._chunks) >= _KEPT:
                self._chunks.clear()
            # Not level: when it is used again, the log may have more entries.
            self._chunks[key] = time.monotonic(), chunk._replace(level=False)
        return chunk

    def _read(
        self, log: Readable, after: Place, interest: Interest, session: str, upto: Place | None, known: Place | None
    ) -> Chunk | Page:
        """Return the next chunk for one reader, without the cache, or a page with the gap."""
        page = log.read(after, PAGE, interest, upto, known)
        if page.gap:
            return page
        mine = [entry for entry in page.entries if session not in entry.packet.exclude]
        return _chunk(mine, page.place, page.level)


def read_chunk(log: Readable, after: Place, interest: Interest, upto: Place | None = None) -> Chunk | Page:
    """Return the next chunk that all members of some zones share, or a page with the gap.

    :param upto: do not read past this place; None for the end.
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
    """Return how many entries fit into one chunk: at least one. The last one may exceed the limit.

    The end of a production is the last entry of a chunk, because it may be the last one of a stream.
    """
    size = 0
    for count, entry in enumerate(entries, 1):
        size += len(entry.data)
        if size >= CHUNK or entry.packet.__class__ is Ending:
            return count
    return len(entries)
