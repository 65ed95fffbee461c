"""Several: lanes of a log, read as one by a connection whose zones are in more than one of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ssehub.log.base import Gap, Page, Readable
from ssehub.log.packet import Entry
from ssehub.log.position import Place, Places, parse_parts


class Several(Readable):
    """Read several lanes side by side, each in its order; between lanes there is none.

    Safe to use from any thread.

    :param lanes: the lanes by number, in order.
    """

    def __init__(self, lanes: dict[int, Readable]) -> None:
        self._lanes = lanes

    def read(self, after: Place, limit: int) -> Page:
        """Read on from a place: from each lane its share. What is missing in any of them is one gap."""
        share = max(1, limit // len(self._lanes))
        pages = [self._lanes[part.lane].read(part, share) for part in after.parts]
        gaps = [page.gap for page in pages if page.gap]
        if gaps:
            for gap in gaps:
                after = after.put(gap.place.parts[0])
            known = [gap.missed for gap in gaps if gap.missed is not None]
            return Page((), False, Gap(gaps[0].reason, sum(known) if len(known) == len(gaps) else None, after))
        entries: list[Entry] = []
        for entry in itertools.islice(itertools.chain.from_iterable(page.entries for page in pages), limit):
            after = after.put(entry.position)
            entries.append(entry.seen_from(after))
        level = all(page.level for page in pages) and len(entries) == sum(len(page.entries) for page in pages)
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
