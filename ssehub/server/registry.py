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
    """A stream that has not begun: the response was made, but the server has not started to send its body.

    :ivar cancelled: whether the client was disconnected meanwhile.
    """

    __slots__ = ("__weakref__", "cancelled", "client_id", "zones")

    def __init__(self, zones: tuple[str, ...], client_id: str | None) -> None:
        self.zones: tuple[str, ...] = zones
        self.client_id: str | None = client_id
        self.cancelled: bool = False


class Registry:
    """The connections of this process, by zone, client and session. Safe to use from any thread; never blocks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: Sessions = {}
        self._zones: dict[str, Sessions] = {}
        self._homes: Counter[int] = Counter()
        self._members: dict[str, Member] = {}
        #: Weak references, because a server may drop a response without sending its body.
        self._expected: weakref.WeakSet[Expected] = weakref.WeakSet()

    def __len__(self) -> int:
        return len(self._sessions)

    def is_unused(self) -> bool:
        """Return whether there are no connections and no expected streams."""
        with self._lock:
            return not self._sessions and not self._expected

    def expect(self, zones: tuple[str, ...], client_id: str | None) -> Expected:
        """Add an expected stream. It is removed by :meth:`arrive`, or when the result is garbage-collected."""
        expected = Expected(zones, client_id)
        with self._lock:
            self._expected.add(expected)
        return expected

    def arrive(self, expected: Expected) -> bool:
        """Remove an expected stream. Return False if its client was disconnected meanwhile."""
        with self._lock:
            self._expected.discard(expected)
            return not expected.cancelled

    def cancel(self, zone: str | All, client_id: str) -> int:
        """Cancel a client's expected streams, so that they end when they begin. Return how many there are."""
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
        """Add a connection. From then on it shares the metadata of the client's other connections.

        :param limit: the maximum number of connections; None for no limit.
        :param limit_per_client: the maximum number of connections of one client; None for no limit.
        :returns: False if a limit is reached. The connection is not added then.
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
        """Remove a connection. With a client's last connection, its metadata is removed, too."""
        with self._lock:
            del self._sessions[connection.id]
            self._homes[connection.home] -= 1
            for zone in connection.zones:
                _drop(self._zones, zone, self._zones[zone], connection)
            _drop(self._members, connection.client_id, connection.member.sessions, connection)

    def count(self, zone: str | All = ALL) -> int:
        """Return the number of connections in a zone, or in all zones."""
        return len(self._sessions if zone is ALL else self._zones.get(zone, ()))

    def receivers(self, packet: Packet, partition: int) -> tuple[int, list[Connection] | None]:
        """Return the number of connections to which a packet is addressed, and the connections.

        :param partition: the partition in which the packet has arrived. A packet without a zone arrives in every
            partition. Each connection reads it from its home partition only, so that it is counted once.
        :returns: None instead of the connections if they are all in the packet's zone, without the excluded sessions.
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
        """Return the connections of a client, in a zone, or both. Without arguments, return all."""
        with self._lock:
            return self._find(zone, client_id)

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections, with the number of connections in each."""
        with self._lock:
            return {zone: len(sessions) for zone, sessions in self._zones.items()}

    def clients(self) -> int:
        """Return the number of different clients."""
        return len(self._members)

    def set_metadata(self, client_id: str, data: Any, version: tuple[int, int] | None = None) -> None:
        """Replace the metadata of a client.

        :param version: the version of the command. If a later command was carried out before, the metadata stays.
        :raises UnknownClient: if the client is not connected.
        """
        with self._lock:
            member = self._member(client_id)
            if version is None or version >= member.version:
                member.metadata, member.version = data, version or member.version

    def forget_versions(self) -> None:
        """Forget the versions of commands, because another log may have smaller ones."""
        with self._lock:
            for member in self._members.values():
                member.version = (0, 0)

    def get_metadata(self, client_id: str) -> Any:
        """Return the metadata of a client; None if no metadata was set.

        :raises UnknownClient: if the client is not connected.
        """
        with self._lock:
            return self._member(client_id).metadata

    # The methods below run under the lock.

    def _count_excluded(self, packet: Packet, partition: int) -> int:
        """Return how many connections of a packet's zone are excluded."""
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
    if not sessions:  # remove empty zones and clients, to free their memory
        del table[key]
