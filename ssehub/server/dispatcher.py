"""Dispatcher: a hub's machinery in one process. Takes in connections, and wakes those that an entry is for.

How a message is delivered
--------------------------

1. A sender appends a packet to the log, which gives it a place (:mod:`ssehub.log`). A log in memory does so in the
   sender's thread. A shared log is appended to by many processes, and a thread in each follows it.
2. The log puts the entry into its index (:mod:`ssehub.log.history`) and then calls :meth:`Dispatcher.deliver`, for one
   entry at a time, in order. From the moment of the first step on a reader can find the entry.
3. The dispatcher looks up whom the entry is for in the registry, and announces it to the deliveries. They are two:
   :class:`~ssehub.server.wakeups.Wakeups` for streams that a thread of the server iterates, and
   :class:`~ssehub.wsgi.writer.Writer` for those that were taken over from the server. Both only make a note and return:
   a sender never waits for a receiver.
4. The stream's thread, or the writer, has the connection's :class:`~ssehub.server.reader.Reader` take what follows its
   place in the log. Readers at the same place that want the same share the encoded bytes
   (:mod:`ssehub.server.page_cache`).
5. The client stores the id of each event, which is a place in the log. When it comes back, its reader begins there.

Locks, in the order in which they may be taken: the log's own; then one of the registry's, the wakeups', the history's.
None of the three is held while anything else is called. No lock is held across a read, a write to a socket, or a hook.

A wake-up cannot be lost: entries are in the index before they are announced, and a delivery notes that a connection is
idle before it looks into the index for the last time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ssehub.exceptions import LogError
from ssehub.hooks import Hook
from ssehub.log import Command, Entry, Gap, Log, Position
from ssehub.logger import logger
from ssehub.server.cluster import Cluster
from ssehub.server.connection import Connection
from ssehub.server.counters import Counters
from ssehub.server.page_cache import PageCache
from ssehub.server.registry import Registry
from ssehub.server.settings import HubSettings
from ssehub.server.start_position import StartPosition
from ssehub.server.wakeups import Delivery, Wakeups
from ssehub.single_flight import SingleFlight


class Hooks:
    """The hooks of a hub."""

    def __init__(self) -> None:
        self.on_connection: Hook[[Connection]] = Hook("on_connection")
        self.on_disconnect: Hook[[Connection]] = Hook("on_disconnect")
        self.on_gap: Hook[[Connection, Gap]] = Hook("on_gap")


class Dispatcher:
    """Everything of a hub that concerns one process, but for HTTP and sockets. Safe to use from any thread."""

    def __init__(self, log: Log, settings: HubSettings, hooks: Hooks, closed: bool) -> None:
        self.registry: Registry = Registry()
        self.counters: Counters = Counters()
        self.cluster: Cluster = Cluster(self.registry, log, self.stats)
        self.hooks = hooks
        self.settings = settings
        #: Whether the hub takes streams, and messages.
        self.takes_streams: bool = not closed
        self.takes_messages: bool = not closed
        self.wakeups: Wakeups = Wakeups()
        self._deliveries: list[Delivery] = [self.wakeups]
        self._more_stats: Callable[[], dict[str, Any]] = dict
        self._log = log
        self._cache = PageCache()
        self._starting: SingleFlight[None] = SingleFlight()
        self._connection_lock = threading.Lock()
        self._started = False

    @property
    def is_started(self) -> bool:
        """Whether it delivers."""
        return self._started

    def start(self) -> None:
        """Begin to deliver, if that has not begun yet: nothing starts before it is needed, because servers fork."""
        if not self._started:
            self._starting.do(self._start)

    def _start(self) -> None:
        if self.takes_messages and not self._started:
            self._log.start(self.deliver, self.broken)
            self.cluster.start()
            self._started = True
            if not self.takes_messages:  # the hub was closed meanwhile
                self._log.close(0.0)

    def add_delivery(self, delivery: Delivery, stats: Callable[[], dict[str, Any]]) -> None:
        """Announce entries to one more delivery from now on.

        :param stats: gives its numbers.
        """
        self._deliveries.append(delivery)
        self._more_stats = stats

    # Connections

    def admit(
        self, zones: tuple[str, ...], client_id: str | None, metadata: Any, start: StartPosition, limit: int | None
    ) -> Connection | None:
        """Make and register a connection; None if it is refused. :meth:`end` has to follow.

        :param limit: connections at most.
        """
        if not self.takes_streams:
            return None
        try:
            self.start()
            view = self._log.open(zones)
        except LogError as error:  # perhaps it can be reached when the client comes back
            logger.warning("a client was sent away: %s", error)
            return None
        settings = self.settings
        connection = Connection(
            zones, client_id, self._log.partitions(zones), self.wakeups, self._connection_lock, settings.max_pending
        )
        try:
            connection.open(view, self._cache, start, settings)
            connection.member.metadata = metadata
            if self.registry.add(connection, limit, settings.max_per_client):
                self.counters.count("opened")
                return connection
        except LogError as error:
            logger.warning("a client was sent away: %s", error)
        except BaseException:
            self._log.release(zones)
            raise
        self._log.release(zones)
        return None

    def take(self, connection: Connection) -> bytes | Gap:
        """Take what a connection is to be sent now; see :meth:`ssehub.server.reader.Reader.take`.

        If the log cannot be read, the connection is closed: when its client comes back with its place, the log may be
        able to tell what follows.
        """
        try:
            return connection.reader.take()
        except LogError as error:
            logger.warning("a stream was ended: %s", error)
            connection.close("log")
            return b""

    def dismiss(self, connection: Connection, reason: str) -> None:
        """Take out a connection whose stream has ended. :meth:`fire_disconnect` has to follow."""
        connection.close(reason)
        self.registry.remove(connection)
        self._log.release(connection.zones)
        self.cluster.leave(connection)
        self.counters.ended(connection.closed)

    def fire_disconnect(self, connection: Connection) -> None:
        """Run the last hooks of a connection, and release all that wait for its end."""
        try:
            self.hooks.on_disconnect.fire(connection)
        finally:
            connection.end()

    def end(self, connection: Connection, reason: str) -> None:
        """Take out a connection whose stream has ended, and run its last hooks, whatever goes wrong."""
        try:
            self.dismiss(connection, reason)
        finally:
            self.fire_disconnect(connection)

    def is_full(self, client_id: str | None, limit: int | None) -> bool:
        """Return whether a client that comes now would be refused.

        :param client_id: the client's id, if it has one.
        :param limit: connections at most.
        """
        own_limit = self.settings.max_per_client
        if not self.takes_streams or (limit is not None and len(self.registry) >= limit):
            return True
        if client_id is None or own_limit is None:
            return False
        return len(self.registry.find(client_id=client_id)) >= own_limit

    # Numbers

    def failing(self) -> dict[str, str]:
        """Return what fails in the background now, by its name, and why."""
        return {**self._log.failing, **self._more_stats().get("failing", {})}

    def stats(self) -> dict[str, Any]:
        """Return all counters; :meth:`ssehub.Hub.stats` says what they are."""
        connections = self.registry.find()
        lags = [connection.lag for connection in connections]
        return {
            **self._more_stats(),
            "connections": len(connections),
            "clients": self.registry.clients(),
            "zones": len(self.registry.zones()),
            "behind": sum(lag > 0 for lag in lags),
            "lag": max(lags, default=0),
            "pending": sum(connection.reader.private for connection in connections),
            "unsent": self._log.unsent,
            "unreadable": self._log.unreadable,
            "failing": self.failing(),
            **self.counters.read(),
        }

    # The log calls these

    def deliver(self, entry: Entry) -> int:
        """Wake the connections that an entry is for. The log calls this in its order, and waits for it."""
        packet = entry.packet
        if isinstance(packet, Command):
            self.cluster.apply(packet)
            return 0
        count, receivers = self.registry.receivers(packet, entry.position.partition)
        if count:
            for delivery in self._deliveries:
                delivery.announce(entry, receivers)
        self.counters.count("messages")
        return count

    def broken(self, end: Position, commands: Sequence[Command]) -> None:
        """Have every connection in a partition judge its place anew: the partition does not go on from where it was."""
        self._cache.clear()
        for connection in self.registry.find():
            if end.partition in connection.partitions:
                connection.reader.invalidate()
        for delivery in self._deliveries:
            delivery.wake_all(end.partition)
        self.registry.forget_versions()
        for command in commands:
            self.cluster.apply(command)
