"""Pages: what comes next in the log for the members of some zones, joined once and shared by all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssehub.log import ALL, Entry, Gap, Packet, Place, Readable

#: Bytes joined into one write. Above 64 KiB a write gains nothing more, and a thousand of them are memory.
CHUNK = 64 * 1024
#: Entries read from the log at a time.
PAGE = 256
#: Pieces kept for others who stand at the same place; when there are more, they are all forgotten.
_KEPT = 64
#: Seconds after which a piece is read from the log anew: what the log has let go of is not given out for long.
FRESH = 1.0


class Piece(NamedTuple):
    """Hold a stretch of the log as one reader is to have it."""

    data: bytes
    #: The number of messages in it.
    messages: int
    #: The place it reaches to; the place it was asked for if there is nothing new.
    after: Place
    #: The first and the last of those messages.
    first: Entry | None
    last: Entry | None


class Pages:
    """Read a log for many connections that stand at the same place and want the same.

    Safe to use from any thread. Pieces never change, so that they are shared without a lock.
    """

    def __init__(self) -> None:
        #: Each with the time it was made (``time.monotonic()``).
        self._pieces: dict[tuple[Place, tuple[str, ...]], tuple[float, Piece]] = {}

    def clear(self) -> None:
        """Forget what was read: the log is not what it was."""
        self._pieces.clear()

    def next(
        self,
        log: Readable,
        after: Place,
        zones: tuple[str, ...],
        wanted: Callable[[Entry], bool],
        limit: int = PAGE,
    ) -> Piece | Gap:
        """Return the next stretch after a place, or the gap that stands there.

        :param log: what the members of these zones read.
        :param zones: the zones of the reader.
        :param wanted: tells what is addressed to this reader in particular.
        :param limit: entries to look at, at the most.
        :raises LogError: if the log cannot be read.
        """
        key = (after, zones)
        made, kept = self._pieces.get(key, (0.0, None))
        if kept is not None and limit >= PAGE and time.monotonic() - made < FRESH:
            return kept
        page = log.read(after, limit)
        if page.gap:
            return page.gap
        piece = _piece(after, page.entries, wanted)
        if page.entries and limit >= PAGE and not any(_is_personal(entry.packet, zones) for entry in page.entries):
            if len(self._pieces) >= _KEPT:
                self._pieces.clear()
            self._pieces[key] = time.monotonic(), piece
        return piece


def _piece(after: Place, entries: Sequence[Entry], wanted: Callable[[Entry], bool]) -> Piece:
    mine = [entry for entry in entries if wanted(entry)]
    fitting = _fitting(mine)
    if fitting < len(mine):
        del mine[fitting:]
        reached = mine[-1].place
    else:  # others' messages behind the last of ours are passed as well
        reached = entries[-1].place if entries else after
    return Piece(
        b"".join([entry.data for entry in mine]), len(mine), reached, *((mine[0], mine[-1]) if mine else (None, None))
    )


def _fitting(entries: Sequence[Entry]) -> int:
    """Return how many entries go into one chunk: at least one, and the last may reach over."""
    size = 0
    for count, entry in enumerate(entries, 1):
        size += len(entry.data)
        if size >= CHUNK:
            return count
    return len(entries)


def _is_personal(packet: Packet, zones: tuple[str, ...]) -> bool:
    """Tell whether some in these zones get the packet and others do not."""
    if packet.client_id is None and not packet.exclude:
        return False
    return packet.zone is ALL or packet.zone in zones
