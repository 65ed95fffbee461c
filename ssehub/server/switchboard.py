"""Switchboard: a hub's machinery in one process. Takes in connections, and wakes those an entry is for."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Generator, Sequence
from typing import Any

from ssehub.exceptions import LogError
from ssehub.hooks import Hook
from ssehub.log import ALL, Entry, Gap, Log, Order, Position
from ssehub.server import peer
from ssehub.server.body import Bodies, Body
from ssehub.server.connection import Connection
from ssehub.server.counters import Counters
from ssehub.server.pace import Pace
from ssehub.server.pages import Pages
from ssehub.server.parking import Parker, Parking
from ssehub.server.registry import Registry
from ssehub.server.relay import Relay
from ssehub.server.roster import Roster
from ssehub.server.start import Start
from ssehub.server.watcher import Watcher

logger = logging.getLogger("ssehub")

#: A hub that is full tells its clients to wait this many times ``retry`` (and up to twice that, spread).
REFUSAL = 5


class Hooks:
    """Hold the hooks of a hub."""

    def __init__(self) -> None:
        self.on_connection: Hook[[Connection]] = Hook("on_connection")
        self.on_disconnect: Hook[[Connection]] = Hook("on_disconnect")
        self.on_gap: Hook[[Connection, Gap]] = Hook("on_gap")


class Switchboard:
    """Hold everything of a hub that may not cross a fork. Safe to use from any thread."""

    def __init__(self, log: Log, pace: Pace, hooks: Hooks, closed: bool) -> None:
        self.registry = Registry()
        self.roster = Roster(self.registry, log, self.stats)
        self.closed = closed
        self._lock = threading.Lock()
        self._started = False
        self._log = log
        self._pace = pace
        self._hooks = hooks
        self._pages = Pages()
        self._parking = Parking()
        self._relay = Relay()
        self._bodies = Bodies()
        self._watcher = Watcher(pace, self._bodies.bury)
        self._bodies.on_drop = self._watcher.ring
        self._counters = Counters()

    def start(self) -> None:
        """Begin to deliver, if that has not begun yet: nothing starts before it is needed, because servers fork."""
        with self._lock:
            if not (self._started or self.closed):
                self._log.start(self._deliver, self._broken)
                self.roster.start()
                self._started = True

    def body(
        self, zones: tuple[str, ...], client_id: str | None, metadata: Any, start: Start, socket: int | None
    ) -> Body:
        """Make the body of a response: the life of a connection.

        Nothing happens before the server asks for the first bytes: a generator that nobody starts runs no ``finally``.

        :param socket: the descriptor of the client's socket, if the server shows it.
        """
        return self._bodies.make(self._life(zones, client_id, metadata, start, socket))

    def _life(
        self, zones: tuple[str, ...], client_id: str | None, metadata: Any, start: Start, socket: int | None
    ) -> Generator[bytes, None, None]:
        with contextlib.ExitStack() as stack:
            connection = self._admit(zones, client_id, metadata, start, stack)
            if connection is None:
                self._counters.count("refused")
                # Where a hub closes, another is about to begin: then there is no need to stay away for longer.
                yield self._pace.farewell(1 if self.closed else REFUSAL)
            else:
                yield from self._serve(connection, metadata, socket)
            if self.closed and socket is not None:
                peer.take_no_more(socket)

    def _serve(self, connection: Connection, metadata: Any, socket: int | None) -> Generator[bytes, None, None]:
        reason = "error"
        try:
            self._counters.enter(connection)
            self.roster.enter(connection, metadata)
            self._watcher.watch(connection, socket)
            self._hooks.on_connection.fire(connection)
            if self.closed:  # close() may have looked round just before
                connection.close("shutdown")
            yield from connection
        except GeneratorExit:
            reason = "hang-up"
            raise
        finally:
            self._watcher.unwatch(connection)
            self._dismiss(connection, reason)

    def is_full(self, client_id: str | None) -> bool:
        """Tell whether a client that comes now would be refused.

        :param client_id: who it is, if it has said so.
        """
        limit, own_limit = self._pace.max_connections, self._pace.max_per_client
        if self.closed or (limit is not None and len(self.registry) >= limit):
            return True
        if client_id is None or own_limit is None:
            return False
        return len(self.registry.find(client_id=client_id)) >= own_limit

    def stats(self) -> dict[str, Any]:
        """Return all counters; :meth:`ssehub.Hub.stats` says what they are."""
        there = {
            "connections": len(self.registry),
            "clients": self.registry.clients(),
            "zones": len(self.registry.zones()),
            "unsent": self._log.unsent,
        }
        return {**there, **self._counters.read()}

    def close(self, timeout: float) -> None:
        """End all streams; :meth:`ssehub.Hub.close` says how."""
        with self._lock:
            self.closed = True
        connections = self.registry.find()
        for connection in connections:
            connection.close("shutdown")
        deadline = time.monotonic() + timeout
        own = threading.get_ident()
        late = [one for one in connections if one.thread != own and not one.wait(max(0.0, deadline - time.monotonic()))]
        self._watcher.cut(late)
        self._watcher.close()
        self._bodies.bury()
        self._log.close()

    def _admit(
        self,
        zones: tuple[str, ...],
        client_id: str | None,
        metadata: Any,
        start: Start,
        stack: contextlib.ExitStack,
    ) -> Connection | None:
        """Make and register a connection; None if it is refused.

        :param stack: holds the log open for it.
        """
        if self.closed:
            return None
        gap = self._hooks.on_gap.fire
        try:
            self.start()
            log, lanes = stack.enter_context(self._log.view(zones)), self._log.lanes(zones)
            connection = Connection(
                log, lanes, self._pages, self._parking, self._relay, self._pace, zones, client_id, start, gap
            )
        except LogError as error:  # perhaps there is one when the client comes back
            logger.warning("a client was sent away: %s", error)
            return None
        connection.member.metadata = metadata
        if not self.registry.add(connection, self._pace.max_connections, self._pace.max_per_client):
            return None
        return connection

    def _dismiss(self, connection: Connection, reason: str) -> None:
        connection.close(reason)
        self.registry.remove(connection)
        self.roster.leave(connection)
        self._counters.take_over(connection)
        self._hooks.on_disconnect.fire(connection)
        connection.end()

    def _deliver(self, entry: Entry) -> int:
        """Wake whom an entry is for. The log calls this in its order, and waits for it."""
        packet = entry.packet
        woken: Sequence[Parker]
        if isinstance(packet, Order):
            self.roster.obey(packet)
            count, woken = self._parking.wake_these(entry, list)
        elif packet.client_id is None and not packet.exclude:
            lane = entry.position.lane
            count = self.registry.at_home(lane) if packet.zone is ALL else self.registry.count(packet.zone)
            woken = self._parking.wake_zone(entry, packet.zone)
        else:
            count, woken = self._parking.wake_these(entry, lambda: self.registry.match(packet, entry.position.lane))
        self._relay.enlist(woken)
        self._counters.count("messages")
        return count

    def _broken(self, tail: Position, orders: Sequence[Order]) -> None:
        """Have every connection in a lane judge its place anew: it does not go on from where it was."""
        self._pages.clear()
        for connection in self.registry.find():
            if tail.lane in connection.lanes:
                connection.reader.doubt()
        self._relay.enlist(self._parking.wake_all(tail))
        self.registry.forget_versions()
        for order in orders:
            self.roster.obey(order)
