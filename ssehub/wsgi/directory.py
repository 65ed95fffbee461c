"""Directory: the part of a hub that lists connected clients, in this process and in all that share the log."""

from __future__ import annotations

from typing import Any, Literal, overload

from ssehub.log import ALL, All, Process, Session
from ssehub.log.packet import OR_ALL, check_name
from ssehub.server.connection import Connection
from ssehub.wsgi.hub_core import HubCore


class Directory(HubCore):
    """The methods of a hub that concern connected clients. Thread-safe."""

    @overload
    def connections(
        self, zone: str | All = ALL, client_id: str | All = ALL, *, everywhere: Literal[False] = False
    ) -> list[Connection]: ...

    @overload
    def connections(
        self, zone: str | All = ALL, client_id: str | All = ALL, *, everywhere: Literal[True]
    ) -> list[Session]: ...

    def connections(
        self, zone: str | All = ALL, client_id: str | All = ALL, *, everywhere: bool = False
    ) -> list[Connection] | list[Session]:
        """Return the open connections of this process: all, or only those of a zone, of a client, or both.

        :param everywhere: True for the connections of all processes that share the log, as :class:`~ssehub.Session`
            values.
        :raises LogError: if the connections of other processes cannot be determined.
        """
        zone = _check_zone(zone)
        client_id = client_id if client_id is ALL else check_name("client_id", client_id, OR_ALL)
        dispatcher = self._own.dispatcher
        return dispatcher.cluster.sessions(zone, client_id) if everywhere else dispatcher.registry.find(zone, client_id)

    def processes(self) -> list[Process]:
        """Return all processes that share the log and serve streams, including this one, each with its statistics.

        :raises LogError: if the other processes cannot be determined.
        """
        return self._own.dispatcher.cluster.processes()

    def is_present(self, client_id: str, zone: str | All = ALL) -> bool:
        """Return whether a client is connected to any process that shares the log, in any zone or in the given one.

        :raises LogError: if the client is not connected here, and the other processes cannot be asked.
        """
        return self._own.dispatcher.cluster.is_present(check_name("client_id", client_id), _check_zone(zone))

    def zones(self) -> dict[str, int]:
        """Return each zone that has connections, with their number, over all processes that share the log.

        :raises LogError: if the zones of other processes cannot be determined.
        """
        return self._own.dispatcher.cluster.zones()

    def set_metadata(self, client_id: str, data: Any) -> None:
        """Replace the metadata of a client. All its sessions share it, and it is deleted when the last one ends.

        Other processes that share the log see the new value a moment later.

        :raises UnknownClient: if the client is not connected anywhere.
        :raises TypeError: if the log is shared and the data cannot be represented as JSON.
        :raises LogError: if the other processes could not be reached.
        """
        self._own.dispatcher.cluster.check_metadata(data)
        self._own.dispatcher.cluster.set_metadata(check_name("client_id", client_id), data)

    def get_metadata(self, client_id: str) -> Any:
        """Return the metadata of a client; None if no metadata was set.

        :raises UnknownClient: if the client is not connected anywhere.
        :raises LogError: if the client is not connected here, and the other processes cannot be asked.
        """
        return self._own.dispatcher.cluster.get_metadata(check_name("client_id", client_id))

    def disconnect(self, client_id: str, *, zone: str | All = ALL, session_id: str | None = None) -> int:
        """End the streams of a client: all, or those in one zone, or one session. Returns before they have ended.

        A stream that :meth:`connect` has created but that has not started ends when it starts. Browsers reconnect by
        themselves; to keep a client out, refuse it before you call :meth:`connect`.

        :returns: the number of these streams, at all processes that share the log.
        :raises LogError: if the other processes could not be reached. The streams of this process have ended then.
        """
        client_id = check_name("client_id", client_id)
        return self._own.dispatcher.cluster.disconnect(client_id, _check_zone(zone), session_id)


def _check_zone(zone: str | All) -> str | All:
    return zone if zone is ALL else check_name("zone", zone, OR_ALL)
