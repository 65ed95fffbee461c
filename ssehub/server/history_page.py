"""HistoryPage: messages of the log as a list, without a stream."""

from __future__ import annotations

from typing import NamedTuple

from ssehub.events import Message
from ssehub.log import Entry, Gap, Interest, Log, Page, Place, Readable
from ssehub.server.start_position import StartPosition


class HistoryPage(NamedTuple):
    """Messages of some zones, oldest first, as :meth:`ssehub.Hub.history` returns them. Immutable."""

    #: The messages. Each has the id that a client gets with it.
    messages: list[Message]
    #: The place after the last message. Pass it as ``since`` to read on, or to begin a stream there.
    cursor: str
    #: Whether more messages follow.
    has_more: bool
    #: The gap before the first message, if messages are missing there; otherwise None.
    gap: Gap | None


def read_history(
    log: Log, zones: tuple[str, ...], client_id: str | None, start: StartPosition, limit: int
) -> HistoryPage:
    """Read messages from the log.

    :param start: where to begin.
    :param limit: the maximum number of messages.
    :raises LogError: if the log cannot be reached.
    """
    view = log.open(zones)
    try:
        return _read(view, Interest(zones, client_id), start, limit)
    finally:
        log.release(zones)


def _read(view: Readable, interest: Interest, start: StartPosition, limit: int) -> HistoryPage:
    found = start.find(view, interest)
    place, known, gap = found.place, found.known, found.gap
    messages: list[Message] = []
    while True:
        page = view.read(place, limit - len(messages), interest, None, known)
        if page.gap is not None:
            if messages:  # the next call reports this gap
                return HistoryPage(messages, str(place), True, gap)
            gap, place, known = gap or page.gap, page.gap.place, page.place
            continue
        messages += [_with_id(entry) for entry in page.entries]
        place = page.place
        if page.level or len(messages) >= limit:
            return HistoryPage(messages, str(place), _has_more(view, interest, page, place), gap)


def _with_id(entry: Entry) -> Message:
    one = entry.packet.message
    return Message(one.data, one.event, id=entry.id, retry=one.retry, comment=one.comment)


def _has_more(view: Readable, interest: Interest, page: Page, place: Place) -> bool:
    return not page.level and view.count(place, interest) > 0
