"""Wakeups: wakes the threads of streams that have something to send, a few at a time.

This is the delivery for streams that a thread (or greenlet) of the server iterates. Streams that were taken over from
the server have another delivery, :mod:`ssehub.wsgi.writer`.

No wake-up is lost. A sender first adds its message to the log, and then looks for sleeping connections. A connection
first registers as sleeping, and then looks for messages in the log. So the sender finds the connection, or the
connection finds the message, or both.

If a thousand threads wake at the same time, they compete for the interpreter, and each of them is slow. So connections
with something to send wait in a line. There are a few *turns*, and a thread wakes only when it gets one. The first
thing it does is to pass its turn on to the next connection in the line. All messages that arrive while a connection
waits in the line are sent in one write.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from ssehub.log import ALL, All, Entry

if TYPE_CHECKING:
    from ssehub.server.connection import Connection

#: The number of turns. Measured with a thousand threads on two processors: a message reaches the last thread after 35
#: ms with one turn, and after 50 ms with eight. If six other busy processes use the processors, too, it takes 365 ms
#: with one turn (3.3 s at worst), because all threads wait for the one that has the turn but no processor. With eight
#: turns it takes 59 ms (0.3 s at worst).
TURNS = 8


class Delivery(Protocol):
    """A way to wake connections when there is something to send. Safe to use from any thread."""

    def wake(self, connection: Connection) -> None:
        """Wake a connection, so that it checks what it has to do. Never blocks."""

    def wake_all(self, partition: int) -> None:
        """Wake all connections that read a partition, so that they check their places. Never blocks."""

    def announce(self, entry: Entry, receivers: Sequence[Connection] | None) -> None:
        """Wake the connections to which an entry is addressed. Never blocks.

        :param receivers: the connections; None for all connections in the entry's zone.
        """


class Wakeups:
    """Wakes the threads of connections. Safe to use from any thread; only :meth:`sleep` blocks.

    A connection that has read the whole log sleeps here. A connection that is awake need not be woken for a new entry,
    because it reads the log again before it sleeps. So a burst of messages wakes each connection only once.

    :param turns: how many threads may wake at the same time.
    """

    def __init__(self, turns: int = TURNS) -> None:
        self._lock = threading.Lock()
        #: The sleeping connections by session id, and the same by zone.
        self._sleepers: dict[str, Connection] = {}
        self._zones: dict[str, dict[str, Connection]] = {}
        self._line: collections.deque[Connection] = collections.deque()
        self._free = turns

    def sleep(self, connection: Connection) -> None:
        """Block until there may be something to send. Return at once if there is something now.

        Only the connection's own thread may call this. The turn is passed on before this method returns.
        """
        if not self._enter(connection):
            return
        try:
            connection.queue.get()
        except BaseException:  # a greenlet that is killed must give back its turn
            if not self._wake((connection,)):
                self._withdraw(connection)
            raise
        self._pass_on()

    def wake(self, connection: Connection) -> None:
        """Wake a connection, if it is sleeping."""
        self._enlist(self._wake((connection,)))

    def wake_all(self, partition: int) -> None:
        """Wake all sleeping connections that read a partition."""
        with self._lock:
            sleepers = list(self._sleepers.values())
        self._enlist(self._wake(one for one in sleepers if partition in one.partitions))

    def announce(self, entry: Entry, receivers: Sequence[Connection] | None) -> None:
        """Wake the sleeping connections to which an entry is addressed."""
        if not self._sleepers:  # a connection that goes to sleep now finds the entry in the log
            return
        if receivers is None:
            receivers = self._in_zone(entry.packet.zone, entry.position.partition)
        self._enlist(self._wake(receivers))

    def _in_zone(self, zone: str | All, partition: int) -> list[Connection]:
        with self._lock:
            if zone is ALL:
                return [one for one in self._sleepers.values() if one.home == partition]
            return list(self._zones.get(zone, {}).values())

    def _enter(self, connection: Connection) -> bool:
        """Register a connection as sleeping. Return False if it has something to do instead."""
        with self._lock:
            self._sleepers[connection.id] = connection
            for zone in connection.zones:
                self._zones.setdefault(zone, {})[connection.id] = connection
        if connection.closed or not connection.reader.is_level():
            return not self._wake((connection,))  # if it is in the line already, wait for its turn
        return True

    def _wake(self, connections: Iterable[Connection]) -> list[Connection]:
        """Remove connections from the sleeping ones. Return those that were sleeping, for :meth:`_enlist`."""
        woken = []
        with self._lock:
            for connection in connections:
                if self._sleepers.pop(connection.id, None) is None:
                    continue
                woken.append(connection)
                for zone in connection.zones:
                    others = self._zones[zone]
                    del others[connection.id]
                    if not others:
                        del self._zones[zone]
        return woken

    def _enlist(self, woken: list[Connection]) -> None:
        """Add woken connections at the end of the line, and hand out free turns."""
        if not woken:
            return
        with self._lock:
            self._line.extend(woken)
            while self._free and self._line:
                self._free -= 1
                self._line.popleft().queue.put(None)

    def _pass_on(self) -> None:
        """Pass the own turn on to the next connection in the line."""
        with self._lock:
            if self._line:
                self._line.popleft().queue.put(None)
            else:
                self._free += 1

    def _withdraw(self, connection: Connection) -> None:
        """Remove a connection from the line. If it has got a turn meanwhile, pass the turn on."""
        with self._lock:
            if connection in self._line:
                self._line.remove(connection)
                return
        self._pass_on()
