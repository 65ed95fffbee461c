"""Watcher: for streams on threads, notices clients that hung up or stalled, and streams that need a heartbeat."""

from __future__ import annotations

import _socket
import collections
import contextlib
import logging
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ssehub.background import Background
from ssehub.server.connection import Connection
from ssehub.server.settings import HubSettings
from ssehub.wsgi import sockets

logger = logging.getLogger("ssehub")


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
        self._poller: _Epoll | _Selector | None = None
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
        """Begin to watch a connection, and set the keep-alive of its socket; its own thread calls this.

        :param number: the socket's descriptor; it stays the connection's until :meth:`unwatch`. None if the server does
            not show it.
        :returns: False if there can be no more threads or descriptors now, so that it is not watched.
        """
        if number is not None:
            with contextlib.suppress(OSError):
                sockets.tune(number, self._settings.heartbeat, self._settings.stall_timeout)
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
        if (poller := self._poller) is not None:
            poller.ring()

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
            poller, self._poller = self._poller, None
        if poller is not None:
            poller.close()

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
        poller = self._poller
        assert poller is not None
        self._hung_up(poller, poller.wait(max(self._next_sweep - time.monotonic(), 0.0)))
        self._on_ring()
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + self._settings.tick
            self._sweep()

    def _renew_poller(self) -> None:
        """Watch with another poller: the one there is may be what fails."""
        poller = _make_poller()
        with self._lock:
            old, self._poller = self._poller, poller
            for number in self._by_number:
                poller.add(number)
        if old is not None:
            old.close()

    def _hung_up(self, poller: _Epoll | _Selector, numbers: Iterable[int]) -> None:
        # Asked again under the lock: meanwhile the number may have become another client's.
        with self._lock:
            there = [number for number in numbers if number in self._by_number]
            gone = [self._by_number[number] for number in there if poller.at_end(number)]
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


class _Alarm:
    """Wake a thread that waits for sockets: one more socket, of our own."""

    def __init__(self) -> None:
        self._far, self.near = socket.socketpair()
        self._far.setblocking(False)
        self.near.setblocking(False)

    def ring(self) -> None:
        with contextlib.suppress(OSError):  # full: it rings already; closed: nobody is left to wake
            self._far.send(b"!")

    def silence(self) -> None:
        with contextlib.suppress(OSError):
            self.near.recv(4096)

    def close(self) -> None:
        self._far.close()
        self.near.close()


class _Epoll(_Alarm):
    """Linux: the kernel says when the other end has finished sending, whatever else lies in the socket."""

    def __init__(self) -> None:
        super().__init__()
        self._epoll = select.epoll()
        self._epoll.register(self.near.fileno(), select.EPOLLIN)

    def add(self, number: int) -> None:
        # No EPOLLIN: a request that the client sends ahead is not our business. ONESHOT: told once is enough.
        flags = select.EPOLLRDHUP | select.EPOLLONESHOT
        try:
            self._epoll.register(number, flags)
        except FileExistsError:
            self._epoll.modify(number, flags)

    def remove(self, number: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(number)

    def wait(self, timeout: float) -> list[int]:
        numbers = [number for number, _ in self._epoll.poll(timeout)]
        if self.near.fileno() in numbers:
            self.silence()
        return numbers

    def at_end(self, number: int) -> bool:
        asked = select.poll()
        asked.register(number, select.POLLRDHUP)
        return bool(asked.poll(0))

    def close(self) -> None:
        super().close()
        self._epoll.close()


class _Selector(_Alarm):
    """Elsewhere, and under gevent: wait until a socket is readable, then look whether that means its end."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.near, selectors.EVENT_READ)
        # A selector may not change while it waits, so its own thread makes the changes.
        self._changes: collections.deque[tuple[bool, int]] = collections.deque()

    def add(self, number: int) -> None:
        self._changes.append((True, number))
        self.ring()

    def remove(self, number: int) -> None:
        self._changes.append((False, number))
        self.ring()

    def wait(self, timeout: float) -> list[int]:
        while self._changes:
            self._change(*self._changes.popleft())
        ready: list[Any] = [key.fd for key, _ in self._selector.select(timeout)]
        self.silence()
        ready = [number for number in ready if number != self.near.fileno()]
        for number in ready:  # data or the end: either way it has been seen, and would only spin
            self._change(False, number)
        return ready

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
        super().close()
        self._selector.close()


def _make_poller() -> _Epoll | _Selector:
    # Looked up now: gevent patches after import, and takes epoll away.
    return _Epoll() if hasattr(select, "epoll") else _Selector()
