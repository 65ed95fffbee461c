"""Registry: the connections of this process, by zone and by client."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from typing import Any

from ssehub.exceptions import UnknownClient
from ssehub.log import ALL, All, Packet
from ssehub.server.connection import Connection, Member

Sessions = dict[str, Connection]


class Expected:
    """A stream whose response was made, and whose body has not begun.

    :ivar cancelled: whether its client was disconnected meanwhile.
    """

    __slots__ = ("__weakref__", "cancelled", "client_id", "zones")

    def __init__(self, zones: tuple[str, ...], client_id: str | None) -> None:
        self.zones: tuple[str, ...] = zones
        self.client_id: str | None = client_id
        self.cancelled: bool = False


class Registry:
    """Find connections by zone, client and session. Safe to use from any thread; never blocks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: Sessions = {}
        self._zones: dict[str, Sessions] = {}
        self._homes: Counter[int] = Counter()
        self._members: dict[str, Member] = {}
        #: Weak, because a server may let go of a response without asking for its body.
        self._expected: weakref.WeakSet[Expected] = weakref.WeakSet()

    def __len__(self) -> int:
        return len(self._sessions)

    def is_unused(self) -> bool:
        """Return whether there is no connection, and none is to come."""
        with self._lock:
            return not self._sessions and not self._expected

    def expect(self, zones: tuple[str, ...], client_id: str | None) -> Expected:
        """Note a stream that may begin. It is forgotten at :meth:`arrive`, or when nobody refers to it."""
        expected = Expected(zones, client_id)
        with self._lock:
            self._expected.add(expected)
        return expected

    def arrive(self, expected: Expected) -> bool:
        """Forget an expected stream; False if its client was disconnected meanwhile."""
        with self._lock:
            self._expected.discard(expected)
            return not expected.cancelled

    def cancel(self, zone: str | All, client_id: str) -> int:
        """Have a client's streams that have not begun end when they begin; return how many there are."""
        with self._lock:
            found = [
                one
                for one in self._expected
                if one.client_id == client_id and not one.cancelled and (zone is ALL or zone in one.zones)
            ]
            for one in found:
                one.cancelled = True
            return len(found)

    def add(self, connection: Connection, limit: int | None = None, limit_per_client: int | None = None) -> bool:
        """Enter a connection; its client's sessions share one metadata from here on.

        :returns: False if a limit was reached; nothing has changed then.
        """
        with self._lock:
            member = self._members.get(connection.client_id, connection.member)
            if limit is not None and len(self._sessions) >= limit:
                return False
            if limit_per_client is not None and len(member.sessions) >= limit_per_client:
                return False
            if connection.metadata is not None:
                member.metadata = connection.metadata
            connection.member = self._members[connection.client_id] = member
            member.sessions[connection.id] = self._sessions[connection.id] = connection
            self._homes[connection.home] += 1
            for zone in connection.zones:
                self._zones.setdefault(zone, {})[connection.id] = connection
            return True

    def remove(self, connection: Connection) -> None:
        """Take a connection out; with a client's last session its metadata goes."""
        with self._lock:
            del self._sessions[connection.id]
            self._homes[connection.home] -= 1
            for zone in connection.zones:
                _drop(self._zones, zone, self._zones[zone], connection)
            _drop(self._members, connection.client_id, connection.member.sessions, connection)

    def count(self, zone: str | All = ALL) -> int:
        """Return the number of connections in a zone, or of all."""
        return len(self._sessions if zone is ALL else self._zones.get(zone, ()))

    def receivers(self, packet: Packet, partition: int) -> tuple[int, list[Connection] | None]:
        """Return how many connections a packet is for when it comes in a partition, and which.

        A packet without a zone is in every partition; each connection takes it from its home, so it counts once.

        :returns: None for the connections if they are all those in the packet's zone, but for the sessions it excludes.
        """
        with self._lock:
            if packet.client_id is None:
                count = self._homes[partition] if packet.zone is ALL else len(self._zones.get(packet.zone, ()))
                return count - self._count_excluded(packet, partition), None
            found = self._find(packet.zone, packet.client_id)
            if packet.zone is ALL:
                found = [one for one in found if one.home == partition]
            if packet.exclude:
                found = [one for one in found if one.id not in packet.exclude]
            return len(found), found

    def find(self, zone: str | All = ALL, client_id: str | All = ALL) -> list[Connection]:
        """Return the connections of a client, a zone, both or neither."""
        with self._lock:
            return self._find(zone, client_id)

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections, and how many."""
        with self._lock:
            return {zone: len(sessions) for zone, sessions in self._zones.items()}

    def clients(self) -> int:
        """Return the number of different clients."""
        return len(self._members)

    def set_metadata(self, client_id: str, data: Any, version: tuple[int, int] | None = None) -> None:
        """Replace the metadata of a client.

        :param version: that of the command; nothing happens if a later one was carried out already.
        :raises UnknownClient: if it is not connected.
        """
        with self._lock:
            member = self._member(client_id)
            if version is None or version >= member.version:
                member.metadata, member.version = data, version or member.version

    def forget_versions(self) -> None:
        """Carry out any command from now on: the log that versioned them is another."""
        with self._lock:
            for member in self._members.values():
                member.version = (0, 0)

    def get_metadata(self, client_id: str) -> Any:
        """Return the metadata of a client, or None.

        :raises UnknownClient: if it is not connected.
        """
        with self._lock:
            return self._member(client_id).metadata

    # What follows runs under the lock.

    def _count_excluded(self, packet: Packet, partition: int) -> int:
        """Return how many connections would get a packet if they were not excluded."""
        excluded = [one for id in packet.exclude if (one := self._sessions.get(id)) is not None]
        return sum(one.home == partition if packet.zone is ALL else packet.zone in one.zones for one in excluded)

    def _find(self, zone: str | All, client_id: str | All) -> list[Connection]:
        if client_id is ALL:
            return list((self._sessions if zone is ALL else self._zones.get(zone, {})).values())
        member = self._members.get(client_id)
        sessions = member.sessions.values() if member else ()
        return [one for one in sessions if zone is ALL or zone in one.zones]

    def _member(self, client_id: str) -> Member:
        member = self._members.get(client_id)
        if member is None:
            raise UnknownClient(f"no client {client_id!r} is connected")
        return member


def _drop(table: dict[str, Any], key: str, sessions: Sessions, connection: Connection) -> None:
    del sessions[connection.id]
    if not sessions:  # an empty zone or client leaves nothing behind
        del table[key]
