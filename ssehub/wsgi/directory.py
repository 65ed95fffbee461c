"""Directory: the part of a hub that answers who is connected, in this process and in all that share the log."""

from __future__ import annotations

from typing import Any, Literal, overload

from ssehub.log import ALL, All, Process, Session
from ssehub.log.packet import OR_ALL, check_name
from ssehub.server.connection import Connection
from ssehub.wsgi.hub_core import HubCore


class Directory(HubCore):
    """The methods of a hub that concern clients that are connected. Any thread may call them."""

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
        """Return the open connections of this process, all or those of a zone, a client or both.

        :param everywhere: True for those of all processes that share the log, as :class:`~ssehub.Session` values.
        :raises LogError: if the other processes' cannot be found out.
        """
        zone = _check_zone(zone)
        client_id = client_id if client_id is ALL else check_name("client_id", client_id, OR_ALL)
        dispatcher = self._own.dispatcher
        return dispatcher.cluster.sessions(zone, client_id) if everywhere else dispatcher.registry.find(zone, client_id)

    def processes(self) -> list[Process]:
        """Return this process, and the others that share the log and serve streams, with their numbers.

        :raises LogError: if they cannot be found out.
        """
        return self._own.dispatcher.cluster.processes()

    def is_present(self, client_id: str, zone: str | All = ALL) -> bool:
        """Return whether a client is connected, in any zone or in one, to any of the processes that share the log.

        :raises LogError: if it is not connected here, and it cannot be found out whether it is elsewhere.
        """
        return self._own.dispatcher.cluster.is_present(check_name("client_id", client_id), _check_zone(zone))

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections, and how many each, at all processes that share the log.

        :raises LogError: if those of other processes cannot be found out.
        """
        return self._own.dispatcher.cluster.zones()

    def set_metadata(self, client_id: str, data: Any) -> None:
        """Replace what is noted about a client. All its sessions share it; with the last of them it goes.

        Sessions at other processes that share the log have it a moment later.

        :raises UnknownClient: if the client is not connected anywhere.
        :raises TypeError: if the log is shared and the data is not JSON.
        :raises LogError: if other processes could not be asked or told.
        """
        self._own.dispatcher.cluster.check_metadata(data)
        self._own.dispatcher.cluster.set_metadata(check_name("client_id", client_id), data)

    def get_metadata(self, client_id: str) -> Any:
        """Return what is noted about a client, or None.

        :raises UnknownClient: if the client is not connected anywhere.
        :raises LogError: if it is not connected here, and it cannot be found out whether it is elsewhere.
        """
        return self._own.dispatcher.cluster.get_metadata(check_name("client_id", client_id))

    def disconnect(self, client_id: str, *, zone: str | All = ALL, session_id: str | None = None) -> int:
        """End a client's streams, or only those in a zone, or only one session. Returns without waiting for them.

        A stream for which :meth:`connect` was called, and which has not begun, ends when it begins. A browser comes
        back by itself; to keep it away, refuse it where you call :meth:`connect`.

        :returns: how many there were, at all processes that share the log.
        :raises LogError: if the other processes could not be asked or told. The streams of this process have ended.
        """
        client_id = check_name("client_id", client_id)
        return self._own.dispatcher.cluster.disconnect(client_id, _check_zone(zone), session_id)


def _check_zone(zone: str | All) -> str | All:
    return zone if zone is ALL else check_name("zone", zone, OR_ALL)
