"""Wakeups: which threads sleep on their stream, and which of them has its turn to wake.

This is the delivery of streams that a thread (or greenlet) of the server iterates. Streams that were taken over from
the server are delivered by :mod:`ssehub.wsgi.writer`.

No wake-up is lost. A sender first puts its message into the log and then looks for sleepers. A connection first
registers as a sleeper and then looks into the log. So at least one of them sees the other.

A thousand threads that wake at the same time fight for the interpreter instead of working. So connections that have
something to send stand in a line, only the first few have a turn, and a thread that wakes passes its turn on before it
does anything else. Whatever arrives while a connection stands in line leaves in one write.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from ssehub.log import ALL, All, Entry

if TYPE_CHECKING:
    from ssehub.server.connection import Connection

#: Turns handed out at a time. Measured with a thousand threads and two processors: a message reaches the last of them
#: after 35 ms with one turn, and 50 ms with eight. Beside six processes that want the processors, too, it takes 365 ms
#: with one turn (3.3 s at worst), because everyone waits for a thread that has its turn and no processor. With eight it
#: takes 59 ms (0.3 s at worst).
TURNS = 8


class Delivery(Protocol):
    """A way in which connections are told that there is something to send. Safe to use from any thread."""

    def wake(self, connection: Connection) -> None:
        """Have a connection look at what it has to do. Never blocks."""

    def wake_all(self, partition: int) -> None:
        """Have all connections that read a partition look at their place. Never blocks."""

    def announce(self, entry: Entry, receivers: Sequence[Connection] | None) -> None:
        """Wake the connections that an entry is for. Never blocks.

        :param receivers: the connections. None: everyone in the entry's zone.
        """


class Wakeups:
    """Wakes the threads of connections. Safe to use from any thread; never blocks.

    A connection that is level with the log sleeps here. To connections that do not sleep an entry costs nothing,
    because they read the log before they sleep. So a burst touches each connection once, however many messages it has.

    :param turns: how many threads may be waking at a time.
    """

    def __init__(self, turns: int = TURNS) -> None:
        self._lock = threading.Lock()
        #: Connections that sleep, all and by zone, each by its session's id.
        self._sleepers: dict[str, Connection] = {}
        self._zones: dict[str, dict[str, Connection]] = {}
        self._line: collections.deque[Connection] = collections.deque()
        self._free = turns

    def sleep(self, connection: Connection) -> None:
        """Block until there may be something to send. Returns at once if there is something now.

        Only the connection's own thread may call this. The turn is passed on before it returns.
        """
        if not self._enter(connection):
            return
        try:
            connection.queue.get()
        except BaseException:  # a greenlet that is killed must not take a turn with it
            if not self._wake((connection,)):
                self._withdraw(connection)
            raise
        self._pass_on()

    def wake(self, connection: Connection) -> None:
        """Wake a connection, if it sleeps."""
        self._enlist(self._wake((connection,)))

    def wake_all(self, partition: int) -> None:
        """Wake all connections that read a partition."""
        with self._lock:
            sleepers = list(self._sleepers.values())
        self._enlist(self._wake(one for one in sleepers if partition in one.partitions))

    def announce(self, entry: Entry, receivers: Sequence[Connection] | None) -> None:
        """Wake the connections that an entry is for, if they sleep."""
        if not self._sleepers:  # a connection that comes now finds the entry in the log
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
        """Register a sleeper; False if it has something to do first."""
        with self._lock:
            self._sleepers[connection.id] = connection
            for zone in connection.zones:
                self._zones.setdefault(zone, {})[connection.id] = connection
        if connection.closed or not connection.reader.is_level():
            return not self._wake((connection,))  # if it was woken already, its turn will come
        return True

    def _wake(self, connections: Iterable[Connection]) -> list[Connection]:
        """Take those out that sleep, and return them: they are to be enlisted."""
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
        """Put sleepers at the end of the line, and hand out the turns that are free."""
        if not woken:
            return
        with self._lock:
            self._line.extend(woken)
            while self._free and self._line:
                self._free -= 1
                self._line.popleft().queue.put(None)

    def _pass_on(self) -> None:
        """Give the turn one has received to the next in line."""
        with self._lock:
            if self._line:
                self._line.popleft().queue.put(None)
            else:
                self._free += 1

    def _withdraw(self, connection: Connection) -> None:
        """Take a connection that stands in line out of it, or pass on the turn it was given meanwhile."""
        with self._lock:
            if connection in self._line:
                self._line.remove(connection)
                return
        self._pass_on()
