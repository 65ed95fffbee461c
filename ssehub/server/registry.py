"""Registry: which connections there are, by zone and by client."""

from __future__ import annotations

import threading
from typing import Any

from ssehub.exceptions import UnknownClient
from ssehub.log import ALL, All, Packet
from ssehub.server.connection import Connection, Member


class Registry:
    """Find connections by zone, client and session. Safe to use from any thread; never blocks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, Connection] = {}
        self._zones: dict[str, dict[str, Connection]] = {}
        self._members: dict[str, Member] = {}

    def __len__(self) -> int:
        return len(self._sessions)

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
            for zone in connection.zones:
                self._zones.setdefault(zone, {})[connection.id] = connection
            return True

    def remove(self, connection: Connection) -> bool:
        """Take a connection out; with a client's last session goes what was noted about it.

        :returns: False if it was not there.
        """
        with self._lock:
            if self._sessions.pop(connection.id, None) is None:
                return False
            for zone in connection.zones:
                self._drop(self._zones, zone, self._zones[zone], connection)
            self._drop(self._members, connection.client_id, connection.member.sessions, connection)
            return True

    def match(self, packet: Packet) -> list[Connection]:
        """Return the connections a packet is for, each once."""
        found = self.find(packet.zone, ALL if packet.client_id is None else packet.client_id)
        if packet.exclude:
            return [connection for connection in found if connection.id not in packet.exclude]
        return found

    def find(self, zone: str | All = ALL, client_id: str | All = ALL) -> list[Connection]:
        """Return the connections of a client, a zone, both or neither."""
        with self._lock:
            if client_id is ALL:
                sessions = self._sessions if zone is ALL else self._zones.get(zone, {})
                return list(sessions.values())
            member = self._members.get(client_id)
            if member is None:
                return []
            return [one for one in member.sessions.values() if zone is ALL or zone in one.zones]

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections, and how many."""
        with self._lock:
            return {zone: len(sessions) for zone, sessions in self._zones.items()}

    def clients(self) -> int:
        """Return the number of different clients."""
        return len(self._members)

    def set_metadata(self, client_id: str, data: Any) -> None:
        """Replace what is noted about a client.

        :raises UnknownClient: if it is not connected.
        """
        with self._lock:
            self._member(client_id).metadata = data

    def get_metadata(self, client_id: str) -> Any:
        """Return what is noted about a client, or None.

        :raises UnknownClient: if it is not connected.
        """
        with self._lock:
            return self._member(client_id).metadata

    # What follows runs under the lock.

    def _member(self, client_id: str) -> Member:
        member = self._members.get(client_id)
        if member is None:
            raise UnknownClient(f"no client {client_id!r} is connected")
        return member

    def _drop(self, table: dict[str, Any], key: str, sessions: dict[str, Connection], connection: Connection) -> None:
        del sessions[connection.id]
        if not sessions:  # an empty zone or client leaves nothing behind
            del table[key]
