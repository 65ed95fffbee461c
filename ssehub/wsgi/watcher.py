"""Watcher: notices disconnected and stalled clients of streams on threads, and wakes streams for heartbeats."""

from __future__ import annotations

import _socket
import collections
import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ssehub.background import Background
from ssehub.logger import logger
from ssehub.server.connection import Connection
from ssehub.server.settings import HubSettings
from ssehub.wsgi import poller, sockets
from ssehub.wsgi.poller import Poller


class Watched(Protocol):
    """The interface that the watcher needs of a stream."""

    connection: Connection
    writing_since: float | None
    alarm: float

    def wake(self) -> None:
        """Wake the stream's thread, if it sleeps."""

    def close(self, reason: str) -> bool:
        """Ask the stream to end."""


class Watcher:
    """A thread, ``ssehub-watcher``, that watches the sockets of connections. It starts with the first connection.

    Thread-safe. The watcher only asks a connection to close; the connection's own thread does the rest.

    :param settings: the hub's settings: a peer that owes an acknowledgement for two heartbeats has vanished, and a
        write that takes longer than ``stall_timeout`` is aborted.
    :param on_ring: called periodically by the thread, and soon after :meth:`ring`.
    """

    def __init__(self, settings: HubSettings, on_ring: Callable[[], None]) -> None:
        self._settings = settings
        self._on_ring = on_ring
        self._lock = threading.Lock()
        self._watched: dict[Watched, int | None] = {}
        self._by_number: dict[int, Watched] = {}
        self._poller: Poller | _Selector | None = None
        #: When the streams are next checked one by one (``time.monotonic()``).
        self._next_sweep = time.monotonic() + settings.tick
        self._background = Background(
            "ssehub-watcher",
            self._work,
            ("disconnected and stalled clients are not noticed, and heartbeats are late", "streams are watched again"),
            on_failure=self._renew_poller,
        )
        self._closed = False

    @property
    def failure(self) -> str | None:
        """Why streams are not watched now; None if they are."""
        return None if self._background.failure is None else str(self._background.failure)

    def watch(self, connection: Watched, number: int | None) -> bool:
        """Start watching a connection. The connection's own thread calls this.

        :param number: the descriptor of the socket, which belongs to the connection until :meth:`unwatch`. None if the
            server does not expose it.
        :returns: False if the connection is not watched, because no threads or descriptors are left.
        """
        try:
            with self._lock:
                if self._closed:
                    return True
                self._enter(connection, number)
            self._background.start()
        except (RuntimeError, OSError):
            self.unwatch(connection)
            return False
        return True

    def unwatch(self, connection: Watched) -> None:
        """Stop watching a connection. Its thread calls this before the socket is closed."""
        with self._lock:
            number = self._watched.pop(connection, None)
            if number is not None and self._by_number.get(number) is connection:
                del self._by_number[number]
                if self._poller is not None:
                    self._poller.remove(number)

    def cut(self, connections: Iterable[Connection]) -> None:
        """Shut down the sockets of these connections, so that threads that block in a write continue."""
        wanted = set(connections)
        # Under the lock, because a watched descriptor cannot have been closed and reused for another client.
        with self._lock:
            for stream, number in self._watched.items():
                if number is not None and stream.connection in wanted:
                    sockets.shut_down(number)

    def ring(self) -> None:
        """Make the watcher's thread call ``on_ring`` soon. Takes no lock."""
        if (waiting := self._poller) is not None:
            waiting.ring()

    def close(self) -> None:
        """Stop the thread for good, and wait for it. Idempotent."""
        with self._lock:
            self._closed = True
            self._background.end()
            self._watched.clear()
            self._by_number.clear()
        self.ring()
        while not self._background.join(1.0):
            pass
        with self._lock:
            last, self._poller = self._poller, None
        if last is not None:
            last.close()

    # The lock is held

    def _enter(self, connection: Watched, number: int | None) -> None:
        if self._poller is None:
            self._poller = _make_poller()
        self._watched[connection] = number
        if number is not None:
            former = self._by_number.get(number)
            if former is not None:  # its socket was closed without unwatch()
                self._watched[former] = None
            self._by_number[number] = connection
            self._poller.add(number)

    # In the watcher's thread

    def _work(self) -> None:
        waiting = self._poller
        assert waiting is not None
        self._hung_up(waiting, waiting.wait(max(self._next_sweep - time.monotonic(), 0.0)))
        self._on_ring()
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + self._settings.tick
            self._sweep()

    def _renew_poller(self) -> None:
        """Replace the poller, because the current one may be the cause of the failure."""
        new = _make_poller()
        with self._lock:
            old, self._poller = self._poller, new
            for number in self._by_number:
                new.add(number)
        if old is not None:
            old.close()

    def _hung_up(self, waiting: Poller | _Selector, found: Iterable[tuple[int, bool]]) -> None:
        # Check again under the lock: in the meantime the descriptor may have been reused for another client.
        with self._lock:
            there = [number for number, is_gone in found if is_gone and number in self._by_number]
            gone = [self._by_number[number] for number in there if waiting.at_end(number)]
        for connection in gone:
            connection.close("hang-up")

    def _sweep(self) -> None:
        """Find the streams with an alarm that is due, with a stalled write, or with a peer that has vanished."""
        with self._lock:
            watched = list(self._watched.items())
        now = time.monotonic()
        for connection, number in watched:
            try:
                self._look_at(connection, number, now)
            except Exception:  # continue with the other streams
                logger.exception("a stream cannot be watched: %r", connection.connection)

    def _look_at(self, connection: Watched, number: int | None, now: float) -> None:
        since = connection.writing_since
        if since is not None and now - since > self._settings.stall_timeout:
            self._give_up(connection, "stalled")
        elif number is not None and self._has_vanished(connection):
            self._give_up(connection, "hang-up")
        elif since is None and now >= connection.alarm:
            connection.wake()

    def _has_vanished(self, connection: Watched) -> bool:
        with self._lock:
            number = self._watched.get(connection)
            if number is None:
                return False
            with contextlib.suppress(OSError), sockets.borrow(number) as sock:
                return sockets.unanswered(sock) > 2 * self._settings.heartbeat
            return False

    def _give_up(self, connection: Watched, reason: str) -> None:
        connection.close(reason)
        self.cut((connection.connection,))


class _Selector:
    """A poller for systems without epoll: waits until a socket is readable, and then checks whether it has ended."""

    def __init__(self) -> None:
        self._far, self._near = socket.socketpair()
        self._far.setblocking(False)
        self._near.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._near, selectors.EVENT_READ)
        # A selector must not change while it waits, so the watcher's thread makes the changes.
        self._changes: collections.deque[tuple[bool, int]] = collections.deque()

    def add(self, number: int) -> None:
        self._changes.append((True, number))
        self.ring()

    def remove(self, number: int) -> None:
        self._changes.append((False, number))
        self.ring()

    def ring(self) -> None:
        with contextlib.suppress(OSError):  # full: a wake-up is pending; closed: no thread waits
            self._far.send(b"!")

    def wait(self, timeout: float) -> list[tuple[int, bool]]:
        while self._changes:
            self._change(*self._changes.popleft())
        ready: list[Any] = [key.fd for key, _ in self._selector.select(timeout)]
        with contextlib.suppress(OSError):
            self._near.recv(4096)
        ready = [number for number in ready if number != self._near.fileno()]
        for number in ready:  # data or the end was seen; to wait for it again would return at once, in a busy loop
            self._change(False, number)
        return [(number, True) for number in ready]

    def at_end(self, number: int) -> bool:
        try:
            with sockets.borrow(number) as sock:
                return not sock.recv(1, _socket.MSG_PEEK | getattr(_socket, "MSG_DONTWAIT", 0))
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _change(self, add: bool, number: int) -> None:
        with contextlib.suppress(KeyError, ValueError, OSError):
            if add:
                self._selector.register(number, selectors.EVENT_READ)
            else:
                self._selector.unregister(number)

    def close(self) -> None:
        self._selector.close()
        self._far.close()
        self._near.close()


def _make_poller() -> Poller | _Selector:
    return Poller(once=True) if poller.is_available() else _Selector()
