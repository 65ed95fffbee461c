"""Several: lanes of a log, read as one by a connection whose zones are in more than one of them."""

from __future__ import annotations

from collections.abc import Callable

from ssehub.log.base import Gap, Page, Readable
from ssehub.log.packet import Entry
from ssehub.log.position import Place, Places, parse_parts


class Several(Readable):
    """Read several lanes one after the other, each in its order; between lanes there is none.

    Safe to use from any thread.

    :param lanes: the lanes by number, in order.
    """

    def __init__(self, lanes: dict[int, Readable]) -> None:
        self._lanes = lanes

    def read(self, after: Place, limit: int) -> Page:
        """Read on from a place: what the first lane has, then the second, and so on."""
        entries: list[Entry] = []
        level = True
        for part in after.parts:
            page = self._lanes[part.lane].read(part, limit - len(entries))
            if page.gap:
                if entries:  # it is told when these are read
                    return Page(entries, False)
                return Page((), False, Gap(page.gap.reason, page.gap.missed, after.put(page.gap.place.parts[0])))
            for entry in page.entries:
                after = after.put(entry.position)
                entries.append(entry.seen_from(after))
            level = level and page.level
        return Page(entries, level)

    def locate(self, last_event_id: str) -> Place | Gap:
        """Find the place an id names. A lane in which it names none is read from now on, after a gap."""
        places = parse_parts(last_event_id) or {}
        if not places:
            for number, lane in self._lanes.items():
                place = lane.locate(last_event_id)
                if not isinstance(place, Gap):
                    places[number] = place.parts[0]
                    break
        found = Places(places[n] if n in places else lane.tail().parts[0] for n, lane in self._lanes.items())
        return found if places.keys() >= self._lanes.keys() else Gap("bad_id", None, found)

    def tail(self) -> Place:
        """Return the places of the newest entries delivered in this process."""
        return Places(lane.tail().parts[0] for lane in self._lanes.values())

    def oldest(self) -> Place:
        """Return the places before the oldest entries that are held."""
        return Places(lane.oldest().parts[0] for lane in self._lanes.values())

    def before_last(self, count: int, wanted: Callable[[Entry], bool]) -> Place:
        """Return the place from which the last ``count`` wanted entries of each lane follow."""
        return Places(lane.before_last(count, wanted).parts[0] for lane in self._lanes.values())
