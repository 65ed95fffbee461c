"""Roster: who is connected, here and at the hub's other processes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from ssehub.exceptions import LogError, UnknownClient
from ssehub.log import ALL, All, Log, Order, Process, Session
from ssehub.server.connection import Connection
from ssehub.server.registry import Registry

logger = logging.getLogger("ssehub")


class Roster:
    """Answer for all processes what the registry answers for this one. Safe to use from any thread.

    What concerns other processes blocks for a round trip, and raises :class:`~ssehub.LogError` if they cannot be asked.

    :param registry: who is connected here.
    :param log: knows who is connected elsewhere, if there is an elsewhere, and carries orders there.
    :param stats: gives the numbers of this process.
    """

    def __init__(self, registry: Registry, log: Log, stats: Callable[[], dict[str, Any]]) -> None:
        self._registry = registry
        self._log = log
        self._stats = stats

    def start(self) -> None:
        """Begin to tell the others who is here."""
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
        presence.changed(connection.client_id, connection.zones)
        if not presence.settle() or connection.client_id == connection.id:  # that id is nobody else's
            return
        try:
            known = [one.metadata for one in presence.others(connection.client_id)]
            if metadata is None:
                self._take_over(connection, known)
            elif any(one != metadata for one in known):
                self._log.append(Order.metadata(connection.client_id, metadata))
        except LogError as error:
            logger.warning("metadata is not shared: %s", error)

    def leave(self, connection: Connection) -> None:
        """Tell the others that a connection is gone."""
        if self._log.presence:
            self._log.presence.changed(connection.client_id, connection.zones)

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

        What all can know is told, also of this one: or numbers would go backwards when others are asked next.
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
        """Tell whether a client is connected anywhere, or anywhere in a zone."""
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
        """Replace what is noted about a client, for all its sessions.

        :raises UnknownClient: if it is not connected.
        """
        if not self._log.shared:
            self._registry.set_metadata(client_id, data)
        elif self.is_present(client_id, ALL):
            self._log.append(Order.metadata(client_id, data))
        else:
            raise UnknownClient(f"no client {client_id!r} is connected")

    def get_metadata(self, client_id: str) -> Any:
        """Return what is noted about a client, or None.

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
        """End a client's streams, or some of them; return how many there were."""
        elsewhere = [one for one in self._elsewhere(client_id, zone) if session_id in (None, one.id)]
        here = [one for one in self._registry.find(zone, client_id) if session_id in (None, one.id)]
        if not elsewhere:
            return sum(one.close() for one in here)
        self._log.append(Order.disconnect(client_id, zone, session_id))
        return len(here) + len(elsewhere)

    def obey(self, order: Order) -> None:
        """Do here what a process has ordered; the log's deliveries call this, and wait for it."""
        assert order.client_id is not None
        if order.what == "disconnect":
            for one in self._registry.find(order.zone, order.client_id):
                if order.session_id in (None, one.id):
                    one.close()
        else:
            self._note(order.client_id, order.data, order.version)

    def _note(self, client_id: str, data: Any, version: tuple[int, int] | None = None) -> None:
        with contextlib.suppress(UnknownClient):  # it is not here, or has just gone
            self._registry.set_metadata(client_id, data, version)
            if self._log.presence:
                self._log.presence.changed(client_id, ())

    def _take_over(self, connection: Connection, known: list[Any]) -> None:
        noted = next((one for one in known if one is not None), None)
        if noted is not None and connection.metadata is None:
            self._note(connection.client_id, noted)

    def _elsewhere(self, client_id: str, zone: str | All) -> list[Session]:
        return self._log.presence.others(client_id, zone) if self._log.presence else []
