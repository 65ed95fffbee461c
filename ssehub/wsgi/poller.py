"""Poller: waits for events on many sockets, and can be woken by other threads. Linux only; works under gevent."""

from __future__ import annotations

import contextlib
import importlib
import select
import socket
import sys
from typing import Any

from ssehub.wsgi.greenlets import uses_greenlets


def is_available() -> bool:
    """Return whether this system has epoll, which :class:`Poller` needs."""
    return _epoll() is not None


def _epoll() -> Any:
    # gevent removes epoll, because waiting for it would block gevent's loop. But the loop itself can wait for an epoll.
    if "gevent.monkey" in sys.modules and not hasattr(select, "epoll"):
        with contextlib.suppress(AttributeError):
            return sys.modules["gevent.monkey"].get_original("select", "epoll")
    return getattr(select, "epoll", None)


def _original(name: str) -> Any:
    """Return an attribute of the module ``select``, without gevent's patches."""
    if "gevent.monkey" in sys.modules:
        return sys.modules["gevent.monkey"].get_original("select", name)
    return getattr(select, name)


class Poller:
    """Waits for sockets to become writable, or to be closed by their peer. One thread waits; any thread may wake it.

    Under gevent the sockets are in an epoll of our own, and gevent's loop waits for that epoll. If they were in the
    loop itself, libev would abort the process when the server closes one of them.

    :param once: True to report the end of a socket only once.
    """

    def __init__(self, once: bool = False) -> None:
        self._epoll = _epoll()()
        self._flags = select.EPOLLRDHUP | (select.EPOLLONESHOT if once else 0)
        self._greenlets = uses_greenlets()
        self._far, self._near = socket.socketpair()
        self._far.setblocking(False)
        self._near.setblocking(False)
        self._epoll.register(self._near.fileno(), select.EPOLLIN)

    def ring(self) -> None:
        """Make :meth:`wait` return, now or on its next call. Thread-safe."""
        with contextlib.suppress(OSError):  # full: a wake-up is pending; closed: no thread waits
            self._far.send(b"!")

    def add(self, number: int) -> None:
        """Wait for a descriptor's peer to disconnect. Thread-safe."""
        # Without EPOLLIN, because data that the client sends (a pipelined request) is not read.
        try:
            self._epoll.register(number, self._flags)
        except FileExistsError:
            self._epoll.modify(number, self._flags)

    def set_writable(self, number: int, wanted: bool) -> None:
        """Choose whether to wait for a descriptor to become writable as well."""
        self._epoll.modify(number, self._flags | (select.EPOLLOUT if wanted else 0))

    def remove(self, number: int) -> None:
        """Stop waiting for a descriptor. Call this before the descriptor is closed. Thread-safe."""
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(number)

    def at_end(self, number: int) -> bool:
        """Return whether a descriptor's peer has disconnected. Never blocks."""
        asked = _original("poll")()
        asked.register(number, select.POLLRDHUP)
        return bool(asked.poll(0))

    def wait(self, timeout: float) -> list[tuple[int, bool]]:
        """Return the descriptors with an event, each with whether its peer has disconnected.

        :param timeout: maximum number of seconds to wait.
        """
        if self._greenlets:
            # Not select(), which does not support descriptors above 1,023.
            waiting = importlib.import_module("gevent.select").poll()
            waiting.register(self._epoll.fileno(), select.POLLIN)
            waiting.poll(timeout * 1000)
            timeout = 0
        found = []
        for number, events in self._epoll.poll(timeout):
            if number == self._near.fileno():
                with contextlib.suppress(OSError):
                    self._near.recv(4096)
            else:
                found.append((number, bool(events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR))))
        return found

    def close(self) -> None:
        """Close the poller's descriptors."""
        self._epoll.close()
        self._far.close()
        self._near.close()
