"""Cluster: the connections of all processes of a hub, and what they are told to do."""

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
from ssehub.server.registry import Registry


class Cluster:
    """Answers for all processes what the registry answers for this one. Safe to use from any thread.

    What concerns other processes blocks for a round trip, and raises :class:`~ssehub.LogError` if they cannot be asked.

    :param registry: the connections of this process.
    :param log: has the presence of other processes, if there are any, and carries commands to them.
    :param stats: gives the numbers of this process.
    """

    def __init__(self, registry: Registry, log: Log, stats: Callable[[], dict[str, Any]]) -> None:
        self._registry = registry
        self._log = log
        self._stats = stats

    def start(self) -> None:
        """Begin to tell the other processes who is connected here."""
        if self._log.presence:
            self._log.presence.start(self._registry, self.stats)

    def enter(self, connection: Connection, metadata: Any) -> None:
        """Tell the others of a connection, and have the client's sessions share one metadata.

        The stream goes on without that while they cannot be told.

        :param metadata: what the connection brought.
        """
        presence = self._log.presence
        if presence is None:
            return
        presence.changed(connection, True)
        if connection.client_id == connection.id:  # no other session has that id, and nobody can ask for it yet
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
        """Tell the others that a connection is gone."""
        if self._log.presence:
            self._log.presence.changed(connection, False)

    def sessions(self, zone: str | All = ALL, client_id: str | All = ALL) -> list[Session]:
        """Return the sessions of all processes: all, or those of a zone, a client or both."""
        presence = self._log.presence
        own = "" if presence is None else presence.process
        here = [
            Session(one.id, one.client_id, one.zones, one.connected_at, one.metadata, own)
            for one in self._registry.find(zone, client_id)
        ]
        return here + ([] if presence is None else presence.others(client_id, zone))

    def processes(self) -> list[Process]:
        """Return the processes that serve streams, and this one.

        This process is reported from the shared store, too; otherwise counters could go backwards when another process
        answers next.
        """
        presence = self._log.presence
        id, known = ("", []) if presence is None else (presence.process, presence.processes())
        if any(one.id == id for one in known):
            return known
        return [*known, Process(id, socket.gethostname(), os.getpid(), len(self._registry), self.stats())]

    def stats(self) -> dict[str, Any]:
        """Return the numbers of this process, with how far it lags behind the log."""
        try:
            lag: int | None = self._log.lag()
        except LogError:
            lag = None
        return {**self._stats(), "log_lag": lag}

    def is_present(self, client_id: str, zone: str | All) -> bool:
        """Return whether a client is connected anywhere, or anywhere in a zone."""
        return bool(self._registry.find(zone, client_id) or self._elsewhere(client_id, zone))

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections, and how many each."""
        zones = self._registry.zones()
        for zone, count in (self._log.presence.zones() if self._log.presence else {}).items():
            zones[zone] = zones.get(zone, 0) + count
        return zones

    def check_metadata(self, data: Any) -> None:
        """Refuse metadata that cannot be told to other processes.

        :raises TypeError: if there are such, and it is not JSON.
        """
        if data is None or not self._log.shared:
            return
        try:
            json.dumps(data, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise TypeError(f"metadata that processes share must be JSON: {error}") from None

    def set_metadata(self, client_id: str, data: Any) -> None:
        """Replace a client's metadata, for all its sessions.

        :raises UnknownClient: if it is not connected.
        """
        if not self._log.shared:
            self._registry.set_metadata(client_id, data)
        elif self.is_present(client_id, ALL):
            self._log.append(Command.metadata(client_id, data))
        else:
            raise UnknownClient(f"no client {client_id!r} is connected")

    def get_metadata(self, client_id: str) -> Any:
        """Return a client's metadata, or None.

        :raises UnknownClient: if it is not connected.
        """
        try:
            return self._registry.get_metadata(client_id)
        except UnknownClient:
            found = self._elsewhere(client_id, ALL)
            if not found:
                raise
            return found[0].metadata

    def disconnect(self, client_id: str, zone: str | All, session_id: str | None) -> int:
        """End a client's streams, or some of them; return how many there were.

        Where processes share a log, the command goes through it, so that streams end after what was sent before. Those
        of this process end also if the others cannot be told, or not now.
        """
        # Streams that have not begun come first: one that begins meanwhile is registered before it is expected no more.
        count = self._registry.cancel(zone, client_id) if session_id is None else 0
        count += len(self._find(client_id, zone, session_id))
        told = False
        try:
            if self._log.shared:
                elsewhere = [one for one in self._elsewhere(client_id, zone) if session_id in (None, one.id)]
                count += len(elsewhere)
                # Without a session also if nobody is there: a stream that has not begun is not present yet.
                if elsewhere or session_id is None:
                    told = bool(self._log.append(Command.disconnect(client_id, zone, session_id)).id)
        finally:
            if not told:
                self._disconnect_here(client_id, zone, session_id)
        return count

    def apply(self, command: Command) -> None:
        """Carry out a command in this process. The log's delivery calls this, and waits for it."""
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
        with contextlib.suppress(UnknownClient):  # it is not here, or has just gone
            self._registry.set_metadata(client_id, data, version)
            if self._log.presence:
                self._log.presence.renoted(client_id)

    def _take_over(self, connection: Connection, known: list[Any]) -> None:
        noted = next((one for one in known if one is not None), None)
        if noted is not None and connection.metadata is None:
            self._set_here(connection.client_id, noted)

    def _elsewhere(self, client_id: str, zone: str | All) -> list[Session]:
        return self._log.presence.others(client_id, zone) if self._log.presence else []
