"""Cluster: the connections of all processes of a hub, and the commands to them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from ssehub.exceptions import LogError, UnknownClient
from ssehub.log import ALL, All, Command, Log, Process, Session
from ssehub.logger import logger
from ssehub.server.connection import Connection
from ssehub.server.productions import Productions
from ssehub.server.registry import Registry


class Cluster:
    """The :class:`~ssehub.server.registry.Registry` for all processes. Safe to use from any thread.

    If the log is shared, a question about other processes takes a round trip to the log's server. It raises
    :class:`~ssehub.LogError` if the server cannot be reached.

    :param registry: the connections of this process.
    :param productions: its productions.
    :param log: the log, which delivers commands to all processes; its ``presence`` has the other connections.
    :param stats: returns the statistics of this process.
    """

    def __init__(
        self, registry: Registry, productions: Productions, log: Log, stats: Callable[[], dict[str, Any]]
    ) -> None:
        self._registry = registry
        self._productions = productions
        self._log = log
        self._stats = stats

    def start(self) -> None:
        """Start to publish the connections of this process to the other processes."""
        if self._log.presence:
            self._log.presence.start(self._registry, self.stats, self._productions.lost)

    def enter(self, connection: Connection, metadata: Any) -> None:
        """Publish a new connection to the other processes, and synchronize the client's metadata with them.

        If the other processes cannot be reached, the stream continues without synchronized metadata.

        :param metadata: the metadata with which the connection was opened.
        """
        presence = self._log.presence
        if presence is None:
            return
        presence.changed(connection, True)
        if connection.client_id == connection.id:  # the id is random, so the client has no other session
            return
        if not presence.settle():
            return
        try:
            known = presence.metadata(connection.client_id)
            if metadata is None:
                self._take_over(connection, known)
            elif any(one != metadata for one in known):
                self._log.append(Command.metadata(connection.client_id, metadata))
        except LogError as error:
            logger.warning("metadata is not shared: %s", error)

    def leave(self, connection: Connection) -> None:
        """Publish to the other processes that a connection was closed."""
        if self._log.presence:
            self._log.presence.changed(connection, False)

    def sessions(self, zone: str | All = ALL, client_id: str | All = ALL) -> list[Session]:
        """Return the sessions of all processes: all, or those of a client, in a zone, or both."""
        presence = self._log.presence
        own = "" if presence is None else presence.process
        here = [
            Session(one.id, one.client_id, one.zones, one.connected_at, one.metadata, own)
            for one in self._registry.find(zone, client_id)
        ]
        return here + ([] if presence is None else presence.others(client_id, zone))

    def processes(self) -> list[Process]:
        """Return all processes that serve streams, and this one.

        The numbers of this process are those in the shared store, if it has them. The current numbers would be newer,
        and counters could then go backwards if another process answers the next request.
        """
        presence = self._log.presence
        id, known = ("", []) if presence is None else (presence.process, presence.processes())
        if any(one.id == id for one in known):
            return known
        return [*known, Process(id, socket.gethostname(), os.getpid(), len(self._registry), self.stats())]

    def stats(self) -> dict[str, Any]:
        """Return the statistics of this process, with ``log_lag``: how many entries it has not delivered yet."""
        try:
            lag: int | None = self._log.lag()
        except LogError:
            lag = None
        return {**self._stats(), "log_lag": lag}

    def is_present(self, client_id: str, zone: str | All) -> bool:
        """Return whether a client is connected to any process, in a zone or in any zone."""
        return bool(self._registry.find(zone, client_id) or self._elsewhere(client_id, zone))

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections, with the number of connections in each."""
        zones = self._registry.zones()
        for zone, count in (self._log.presence.zones() if self._log.presence else {}).items():
            zones[zone] = zones.get(zone, 0) + count
        return zones

    def check_metadata(self, data: Any) -> None:
        """Check that metadata can be sent to other processes.

        :raises TypeError: if the log is shared, and the metadata cannot be encoded as JSON.
        """
        if data is None or not self._log.shared:
            return
        try:
            json.dumps(data, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"metadata that processes share must be JSON: {error}") from None

    def set_metadata(self, client_id: str, data: Any) -> None:
        """Replace a client's metadata for all its sessions.

        :raises UnknownClient: if the client is not connected.
        """
        if not self._log.shared:
            self._registry.set_metadata(client_id, data)
        elif self.is_present(client_id, ALL):
            self._log.append(Command.metadata(client_id, data))
        else:
            raise UnknownClient(f"no client {client_id!r} is connected")

    def get_metadata(self, client_id: str) -> Any:
        """Return a client's metadata; None if no metadata was set.

        :raises UnknownClient: if the client is not connected.
        """
        try:
            return self._registry.get_metadata(client_id)
        except UnknownClient:
            found = self._elsewhere(client_id, ALL)
            if not found:
                raise
            return found[0].metadata

    def disconnect(self, client_id: str, zone: str | All, session_id: str | None) -> int:
        """End all streams of a client, or some of them. Return how many there were.

        If the log is shared, the command is appended to it, so that each stream first sends all earlier messages. If
        that fails, or the command waits in an outbox, the streams of this process are ended at once.
        """
        # Count the streams that have not begun first. A stream that begins now is in the registry before it is removed
        # from the expected ones, so it cannot be missed.
        count = self._registry.cancel(zone, client_id) if session_id is None else 0
        count += len(self._find(client_id, zone, session_id))
        told = False
        try:
            if self._log.shared:
                elsewhere = [one for one in self._elsewhere(client_id, zone) if session_id in (None, one.id)]
                count += len(elsewhere)
                # Other processes may have streams that have not begun. These are not in the presence yet. So without a
                # session id, append the command in any case.
                if elsewhere or session_id is None:
                    told = bool(self._log.append(Command.disconnect(client_id, zone, session_id)).id)
        finally:
            if not told:
                self._disconnect_here(client_id, zone, session_id)
        return count

    def apply(self, command: Command) -> None:
        """Carry out a command in this process. The thread that delivers the log's entries calls this."""
        if command.what == "stop" and command.zone is not ALL:
            self._productions.stop_here(command.zone)
        if command.client_id is None:
            return
        if command.what == "disconnect":
            self._disconnect_here(command.client_id, command.zone, command.session_id)
        else:
            self._set_here(command.client_id, command.data, command.version)

    def _find(self, client_id: str, zone: str | All, session_id: str | None) -> list[Connection]:
        found = self._registry.find(zone, client_id)
        return found if session_id is None else [one for one in found if one.id == session_id]

    def _disconnect_here(self, client_id: str, zone: str | All, session_id: str | None) -> None:
        if session_id is None:
            self._registry.cancel(zone, client_id)
        for one in self._find(client_id, zone, session_id):
            one.close()

    def _set_here(self, client_id: str, data: Any, version: tuple[int, int] | None = None) -> None:
        with contextlib.suppress(UnknownClient):  # the client has no connection to this process
            self._registry.set_metadata(client_id, data, version)
            if self._log.presence:
                self._log.presence.renoted(client_id)

    def _take_over(self, connection: Connection, known: list[Any]) -> None:
        noted = next((one for one in known if one is not None), None)
        if noted is not None and connection.metadata is None:
            self._set_here(connection.client_id, noted)

    def _elsewhere(self, client_id: str, zone: str | All) -> list[Session]:
        return self._log.presence.others(client_id, zone) if self._log.presence else []
