"""MergedPartitions: several partitions of a log, read as one. Connections with zones in several partitions use it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from ssehub.log.base import Gap, Interest, Page, Readable
from ssehub.log.packet import Entry
from ssehub.log.position import Place, Places, Position, parse_parts


class MergedPartitions(Readable):
    """Reads several partitions, each in its own order. Entries of different partitions have no order between them.

    Safe to use from any thread.

    :param partitions: the partitions by number, in order.
    """

    def __init__(self, partitions: Mapping[int, Readable]) -> None:
        self._partitions = partitions
        self._numbers = tuple(partitions)

    def read(
        self,
        after: Place,
        limit: int,
        interest: Interest | None = None,
        upto: Place | None = None,
        known: Place | None = None,
    ) -> Page:
        """Read the entries after a place, a part from each partition. Gaps in several partitions become one gap."""
        share = max(1, limit // len(self._partitions)) if limit else 0
        ends, covered = _by_number(upto), _by_number(known)
        pages = [
            self._partitions[part.partition].read(part, share, wanted, ends.get(part.partition),
                                                  covered.get(part.partition))
            for part, wanted in self._split(after, interest)
        ]  # fmt: skip
        gaps = [page.gap for page in pages if page.gap]
        if gaps:
            known_before = (covered.get(part.partition, part) for part in after.parts)
            covers = Places(
                page.place.parts[0] if page.gap else before for page, before in zip(pages, known_before, strict=True)
            )
            for gap in gaps:
                after = after.put(gap.place.parts[0])
            sizes = [gap.missed for gap in gaps if gap.missed is not None]
            return Page((), covers, False, Gap(gaps[0].reason, sum(sizes) if len(sizes) == len(gaps) else None, after))
        entries: list[Entry] = []
        for entry in itertools.chain.from_iterable(page.entries for page in pages):
            after = after.put(entry.position)
            entries.append(entry.seen_from(after))
        place = Places(page.place.parts[0] for page in pages)
        return Page(entries, place, all(page.level for page in pages))

    def catch_up(self, place: Place) -> None:
        """Wait until this process holds every partition up to a place."""
        for part in place.parts:
            self._partitions[part.partition].catch_up(part)

    def count(self, after: Place, interest: Interest | None = None) -> int:
        """Return how many entries a reader would read after a place, in all partitions together."""
        return sum(self._partitions[part.partition].count(part, own) for part, own in self._split(after, interest))

    def is_at_end(self, place: Place) -> bool:
        """Return whether a place is the end of all partitions."""
        return all(self._partitions[part.partition].is_at_end(part) for part in place.parts)

    def is_addressed(self, interest: Interest, after: Place, upto: Place | None = None) -> bool:
        """Return whether there are, or were, messages to the client alone between two places, in any partition."""
        ends = _by_number(upto)
        return any(
            self._partitions[part.partition].is_addressed(own, part, ends.get(part.partition))
            for part, own in self._split(after, interest)
            if own is not None
        )

    def locate(self, last_event_id: str) -> Place | Gap:
        """Find the place of an id. In partitions that do not know the id, the place is the end, and there is a gap."""
        places = parse_parts(last_event_id) or {}
        if not places:
            for number, partition in self._partitions.items():
                place = partition.locate(last_event_id)
                if not isinstance(place, Gap):
                    places[number] = place.parts[0]
                    break
        found = Places(places[n] if n in places else one.end().parts[0] for n, one in self._partitions.items())
        return found if places.keys() >= self._partitions.keys() else Gap("bad_id", None, found)

    def end(self) -> Place:
        """Return the places of the newest entries delivered in this process."""
        return Places(partition.end().parts[0] for partition in self._partitions.values())

    def oldest(self) -> Place:
        """Return the places before the oldest entries that this process holds."""
        return Places(partition.oldest().parts[0] for partition in self._partitions.values())

    def before_last(self, count: int, interest: Interest) -> Place:
        """Return the place after which a reader reads its last ``count`` entries of each partition."""
        own = interest.in_partitions(self._numbers)
        return Places(one.before_last(count, own[n]).parts[0] for n, one in self._partitions.items())

    def _split(self, place: Place, interest: Interest | None) -> list[tuple[Position, Interest | None]]:
        """Return the place in each partition, with the reader's interest there."""
        own = interest.in_partitions(self._numbers) if interest is not None else {}
        return [(part, own.get(part.partition)) for part in place.parts]


def _by_number(place: Place | None) -> dict[int, Position]:
    return {part.partition: part for part in place.parts} if place is not None else {}
