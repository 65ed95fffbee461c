"""Groups: the streams in the same zones, which can be sent the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ssehub.log import ALL, All, Interest, Place, Position, Readable
from ssehub.server.page_cache import Chunk
from ssehub.wsgi.stream import Stream

#: Greater than any offset.
_NEVER = 1 << 63


class Group:
    """The streams in one set of zones. Only the writer's thread uses it.

    :ivar place: the place up to which everything was sent to the group. Single streams may be at other places.
    """

    def __init__(self, first: Stream) -> None:
        connection = first.connection
        self.log: Readable = connection.reader.log
        self.interest: Interest = connection.reader.interest.shared
        self.home: int = connection.home
        self.partitions: tuple[int, ...] = connection.partitions
        self.streams: dict[Stream, None] = {}
        # If its first stream has to catch up, that stream does so by itself.
        self.place: Place = self.log.end()
        #: No message for the group lies between this offset and the next chunk. For groups with a single partition.
        self._low = _NEVER

    def split(self, chunk: Chunk) -> tuple[list[Stream], list[Stream]]:
        """Return two lists: the streams that can be sent a chunk that begins at the group's place, and the others.

        A stream is in the first list if it is at the group's place, or at another place with no message for the group
        between the two. The others have to be served one by one. Busy streams are in neither list.
        """
        assert chunk.first is not None
        start, low, high = self.place, self._low, chunk.first.position.offset
        one_partition = len(self.partitions) == 1
        fit: list[Stream] = []
        others: list[Stream] = []
        for stream in self.streams:
            if stream.busy:
                continue
            place = stream.reader.place
            if place is start or (one_partition and low <= place[1] < high):  # type: ignore[operator]
                fit.append(stream)
            else:
                others.append(stream)
        if chunk.excluded:
            others += [stream for stream in fit if stream.connection.id in chunk.excluded]
            fit = [stream for stream in fit if stream.connection.id not in chunk.excluded]
        return fit, others

    def upto(self, ends: Mapping[int, Position]) -> Place:
        """Return the place up to which the group may be sent messages.

        :param ends: the last position in each partition. In a partition without one, the group stays where it is.
        """
        place = self.place
        for part in place.parts:
            end = ends.get(part.partition)
            if end is not None and (end.epoch != part.epoch or end.offset > part.offset):
                place = place.put(end)
        return place

    def advance(self, chunk: Chunk) -> None:
        """Note that the group was sent a chunk."""
        self.place = chunk.after
        if chunk.last is not None:
            self._low = chunk.last.position.offset

    def restart(self) -> None:
        """Continue at the end of the log. The streams catch up by themselves."""
        self.place, self._low = self.log.end(), _NEVER


class Groups:
    """All groups, by zone. Only the writer's thread uses them."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], Group] = {}
        self._by_zone: dict[str, dict[tuple[str, ...], Group]] = {}

    def add(self, stream: Stream) -> None:
        """Add a stream to its group."""
        zones = stream.connection.zones
        group = self._groups.get(zones)
        if group is None:
            group = self._groups[zones] = Group(stream)
            for zone in zones:
                self._by_zone.setdefault(zone, {})[zones] = group
        group.streams[stream] = None

    def remove(self, stream: Stream) -> None:
        """Remove a stream from its group."""
        zones = stream.connection.zones
        group = self._groups[zones]
        del group.streams[stream]
        if not group.streams:
            del self._groups[zones]
            for zone in zones:
                del self._by_zone[zone][zones]
                if not self._by_zone[zone]:
                    del self._by_zone[zone]

    def of_stream(self, stream: Stream) -> Group:
        """Return the group of a stream."""
        return self._groups[stream.connection.zones]

    def of(self, zone: str | All, partition: int) -> Iterable[Group]:
        """Return the groups to which a broadcast entry in a zone and a partition has to be sent."""
        if zone is ALL:
            return [group for group in self._groups.values() if group.home == partition]
        return list(self._by_zone.get(zone, {}).values())
