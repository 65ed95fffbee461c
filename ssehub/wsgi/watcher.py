"""Watcher: for streams on threads, notices clients that hung up or stalled, and streams that need a heartbeat."""

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
    """What the watcher needs of a stream."""

    connection: Connection
    writing_since: float | None
    alarm: float

    def wake(self) -> None:
        """Wake its thread, if it sleeps."""

    def close(self, reason: str) -> bool:
        """Ask it to end."""


class Watcher:
    """Watch the sockets of connections from one thread, ``ssehub-watcher``, that starts with the first of them.

    Safe to use from any thread. A connection is only ever asked to close; its own thread does the rest.

    :param settings: the hub's settings: a peer that has not acknowledged for two heartbeats is gone, and a write that
        takes longer than ``stall_timeout`` is cut.
    :param on_ring: called by its thread now and then, and soon after :meth:`ring`.
    """

    def __init__(self, settings: HubSettings, on_ring: Callable[[], None]) -> None:
        self._settings = settings
        self._on_ring = on_ring
        self._lock = threading.Lock()
        self._watched: dict[Watched, int | None] = {}
        self._by_number: dict[int, Watched] = {}
        self._poller: Poller | _Selector | None = None
        #: When the streams are next looked at one by one (``time.monotonic()``).
        self._next_sweep = time.monotonic() + settings.tick
        self._background = Background(
            "ssehub-watcher",
            self._work,
            ("clients that leave or stall are not noticed, and heartbeats are late", "streams are watched again"),
            on_failure=self._renew_poller,
        )
        self._closed = False

    @property
    def failure(self) -> str | None:
        """Why streams are not watched now; None if they are."""
        return None if self._background.failure is None else str(self._background.failure)

    def watch(self, connection: Watched, number: int | None) -> bool:
        """Begin to watch a connection; its own thread calls this.

        :param number: the socket's descriptor; it stays the connection's until :meth:`unwatch`. None if the server does
            not show it.
        :returns: False if there can be no more threads or descriptors now, so that it is not watched.
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
        """Forget a connection. Its thread calls this before it lets go of the socket."""
        with self._lock:
            number = self._watched.pop(connection, None)
            if number is not None and self._by_number.get(number) is connection:
                del self._by_number[number]
                if self._poller is not None:
                    self._poller.remove(number)

    def cut(self, connections: Iterable[Connection]) -> None:
        """Shut down the sockets of these connections, so that threads that are stuck in a write come free."""
        wanted = set(connections)
        # Under the lock: a descriptor that is still watched cannot have been closed and given to another client.
        with self._lock:
            for stream, number in self._watched.items():
                if number is not None and stream.connection in wanted:
                    sockets.shut_down(number)

    def ring(self) -> None:
        """Have ``on_ring`` called soon, by the watcher's thread. It takes no lock."""
        if (waiting := self._poller) is not None:
            waiting.ring()

    def close(self) -> None:
        """Stop watching for good, and wait for the thread. Idempotent."""
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

    # Under the lock

    def _enter(self, connection: Watched, number: int | None) -> None:
        if self._poller is None:
            self._poller = _make_poller()
        self._watched[connection] = number
        if number is not None:
            former = self._by_number.get(number)
            if former is not None:  # its socket was closed behind its back
                self._watched[former] = None
            self._by_number[number] = connection
            self._poller.add(number)

    # In the thread

    def _work(self) -> None:
        waiting = self._poller
        assert waiting is not None
        self._hung_up(waiting, waiting.wait(max(self._next_sweep - time.monotonic(), 0.0)))
        self._on_ring()
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + self._settings.tick
            self._sweep()

    def _renew_poller(self) -> None:
        """Watch with another poller: the one there is may be what fails."""
        new = _make_poller()
        with self._lock:
            old, self._poller = self._poller, new
            for number in self._by_number:
                new.add(number)
        if old is not None:
            old.close()

    def _hung_up(self, waiting: Poller | _Selector, found: Iterable[tuple[int, bool]]) -> None:
        # Asked again under the lock: meanwhile the number may have become another client's.
        with self._lock:
            there = [number for number, is_gone in found if is_gone and number in self._by_number]
            gone = [self._by_number[number] for number in there if waiting.at_end(number)]
        for connection in gone:
            connection.close("hang-up")

    def _sweep(self) -> None:
        """Find those whose time has come, the readers that have stopped and the peers that have vanished."""
        with self._lock:
            watched = list(self._watched.items())
        now = time.monotonic()
        for connection, number in watched:
            try:
                self._look_at(connection, number, now)
            except Exception:  # the others are looked at all the same
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
    """A poller for systems without epoll: wait until a socket is readable, then look whether that means its end."""

    def __init__(self) -> None:
        self._far, self._near = socket.socketpair()
        self._far.setblocking(False)
        self._near.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._near, selectors.EVENT_READ)
        # A selector may not change while it waits, so its own thread makes the changes.
        self._changes: collections.deque[tuple[bool, int]] = collections.deque()

    def add(self, number: int) -> None:
        self._changes.append((True, number))
        self.ring()

    def remove(self, number: int) -> None:
        self._changes.append((False, number))
        self.ring()

    def ring(self) -> None:
        with contextlib.suppress(OSError):  # full: it rings already; closed: nobody is left to wake
            self._far.send(b"!")

    def wait(self, timeout: float) -> list[tuple[int, bool]]:
        while self._changes:
            self._change(*self._changes.popleft())
        ready: list[Any] = [key.fd for key, _ in self._selector.select(timeout)]
        with contextlib.suppress(OSError):
            self._near.recv(4096)
        ready = [number for number in ready if number != self._near.fileno()]
        for number in ready:  # data or the end: either way it has been seen, and would only spin
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
