"""Dispatcher: registers the connections of one process, and wakes those to which a new entry is addressed.

How a message is delivered
--------------------------

1. A sender appends a packet to the log, which gives it a place (:mod:`ssehub.log`). A log in memory does so in the
   sender's thread. A shared log gets packets from many processes; in each process, a thread reads the new entries.
2. The log adds the entry to its index (:mod:`ssehub.log.history`), where readers can find it. Then the log calls
   :meth:`Dispatcher.deliver`, for one entry at a time, in order.
3. The dispatcher asks the registry which connections the entry is addressed to, and announces the entry to the two
   deliveries. :class:`~ssehub.server.wakeups.Wakeups` is for streams that a thread of the server iterates.
   :class:`~ssehub.wsgi.writer.Writer` is for streams that were taken over from the server. Both only make a note and
   return, so a sender never waits for a receiver.
4. The stream's thread, or the writer, calls the connection's :class:`~ssehub.server.reader.Reader`. It reads the
   next messages from the log. Readers with the same place and zones share the encoded bytes
   (:mod:`ssehub.server.page_cache`).
5. The client stores the id of each event, which is a place in the log. When the client reconnects, its new reader
   begins there.

Locks
-----

A thread may take the log's lock first, and then one of three other locks: that of the registry, of the wakeups, or of
the history. While it holds one of these three, it takes no other lock. A thread holds no lock when it calls a reader,
writes to a socket, or runs a hook.

A wake-up cannot be lost. The log adds an entry to the index first, and then announces it. A delivery registers a
connection as idle first, and then checks the index once more. So either the announcement finds the idle connection, or
the check finds the entry.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ssehub.exceptions import LogError
from ssehub.hooks import Hook
from ssehub.log import ALL, Command, Entry, Gap, Log, Position
from ssehub.log.production import Ending
from ssehub.logger import logger
from ssehub.server.cluster import Cluster
from ssehub.server.connection import Connection
from ssehub.server.counters import Counters
from ssehub.server.page_cache import PageCache
from ssehub.server.productions import Productions
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
    """The part of a hub that belongs to one process, without HTTP and sockets. Safe to use from any thread."""

    def __init__(self, log: Log, settings: HubSettings, hooks: Hooks, closed: bool) -> None:
        self.registry: Registry = Registry()
        self.counters: Counters = Counters()
        self.productions: Productions = Productions(log)
        self.cluster: Cluster = Cluster(self.registry, self.productions, log, self.stats)
        self.hooks = hooks
        self.settings = settings
        #: Whether the hub accepts new streams, and new messages.
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
        #: Why the log could not be opened at the last attempt; None if it could.
        self._obstacle: str | None = None

    @property
    def is_started(self) -> bool:
        """Whether the log delivers entries to this dispatcher."""
        return self._started

    def start(self) -> None:
        """Start to deliver entries, unless that was done. It is done when first needed, because servers fork."""
        if not self._started:
            self._starting.do(self._start)

    def _start(self) -> None:
        if self.takes_messages and not self._started:
            try:
                self._log.start(self.deliver, self.broken)
            except LogError as error:
                self._obstacle = str(error)
                raise
            self._obstacle = None
            self.cluster.start()
            self._started = True
            if not self.takes_messages:  # the hub was closed meanwhile
                self._log.close(0.0)

    def add_delivery(self, delivery: Delivery, stats: Callable[[], dict[str, Any]]) -> None:
        """Add a delivery, to which entries are announced from now on.

        :param stats: returns the statistics of the delivery.
        """
        self._deliveries.append(delivery)
        self._more_stats = stats

    # Connections

    def admit(
        self, zones: tuple[str, ...], client_id: str | None, metadata: Any, start: StartPosition, limit: int | None
    ) -> Connection | None:
        """Make and register a connection. You have to call :meth:`end` later.

        :param limit: the maximum number of connections of this process; None for no limit.
        :returns: the connection; None if it is refused.
        """
        if not self.takes_streams:
            return None
        try:
            self.start()
            view = self._log.open(zones)
        except LogError as error:  # the client will try again
            logger.warning("a connection was refused: %s", error)
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
            logger.warning("a connection was refused: %s", error)
        except BaseException:
            self._log.release(zones)
            raise
        self._log.release(zones)
        return None

    def take(self, connection: Connection) -> bytes | Gap:
        """Return what is to be sent to a connection now; see :meth:`ssehub.server.reader.Reader.take`.

        If the log cannot be read, close the connection. The client then reconnects, and tries to read on from its
        place.
        """
        reader = connection.reader
        try:
            found = reader.take()
        except LogError as error:
            logger.warning("a stream was ended: %s", error)
            connection.close("log")
            return b""
        if reader.ended:
            connection.close("ended")
        return found

    def dismiss(self, connection: Connection, reason: str) -> None:
        """Remove a connection whose stream has ended. You have to call :meth:`fire_disconnect` next."""
        connection.close(reason)
        self.registry.remove(connection)
        self._log.release(connection.zones)
        self.cluster.leave(connection)
        self.counters.ended(connection.closed)

    def fire_disconnect(self, connection: Connection) -> None:
        """Run the ``on_disconnect`` hooks of a connection, and wake all threads that wait for its end."""
        try:
            self.hooks.on_disconnect.fire(connection)
        finally:
            connection.end()

    def end(self, connection: Connection, reason: str) -> None:
        """Remove a connection whose stream has ended. Then run its ``on_disconnect`` hooks, even if this fails."""
        try:
            self.dismiss(connection, reason)
        finally:
            self.fire_disconnect(connection)

    def is_full(self, client_id: str | None, limit: int | None) -> bool:
        """Return whether a new connection would be refused now.

        :param client_id: the client's id, if it has one.
        :param limit: the maximum number of connections of this process; None for no limit.
        """
        own_limit = self.settings.max_per_client
        if not self.takes_streams or (limit is not None and len(self.registry) >= limit):
            return True
        if client_id is None or own_limit is None:
            return False
        return len(self.registry.find(client_id=client_id)) >= own_limit

    # Numbers

    def failing(self) -> dict[str, str]:
        """Return the background tasks that fail now, by name, with the reason."""
        unopened = {} if self._obstacle is None else {"log": self._obstacle}
        return {**unopened, **self._log.failing, **self._more_stats().get("failing", {})}

    def stats(self) -> dict[str, Any]:
        """Return all counters. :meth:`ssehub.Hub.stats` describes them."""
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

    # Called by the log

    def deliver(self, entry: Entry) -> int:
        """Wake the connections to which an entry is addressed. The log calls this for each entry, in order."""
        packet = entry.packet
        if isinstance(packet, Command):
            self.cluster.apply(packet)
            return 0
        if isinstance(packet, Ending):
            self._end_streams(packet)
        count, receivers = self.registry.receivers(packet, entry.position.partition)
        if count:
            for delivery in self._deliveries:
                delivery.announce(entry, receivers)
        self.counters.count("messages")
        return count

    def _end_streams(self, packet: Ending) -> None:
        """Wake the streams that end with a production, so that each reads the end itself, and not with its group."""
        if packet.zone is ALL:
            return
        self.productions.ended(packet.zone)
        for connection in self.registry.find(packet.zone):
            if len(connection.zones) == 1:
                connection.wake()

    def broken(self, end: Position, commands: Sequence[Command]) -> None:
        """Make every connection of a partition check its place again: the log was lost, rolled back or trimmed."""
        self._cache.clear()
        for connection in self.registry.find():
            if end.partition in connection.partitions:
                connection.reader.invalidate()
        for delivery in self._deliveries:
            delivery.wake_all(end.partition)
        self.registry.forget_versions()
        for command in commands:
            self.cluster.apply(command)
