"""Poller: waits for many sockets, and can be woken from other threads. Linux only; under gevent, too."""

from __future__ import annotations

import contextlib
import importlib
import select
import socket
import sys
from typing import Any


def uses_greenlets() -> bool:
    """Return whether gevent has replaced threads by greenlets in this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def is_available() -> bool:
    """Return whether this system has what a :class:`Poller` needs."""
    return _epoll() is not None


def _epoll() -> Any:
    # gevent takes epoll away, because waiting for it blocks its loop. The loop can wait for an epoll instead.
    if "gevent.monkey" in sys.modules and not hasattr(select, "epoll"):
        with contextlib.suppress(AttributeError):
            return sys.modules["gevent.monkey"].get_original("select", "epoll")
    return getattr(select, "epoll", None)


def _original(name: str) -> Any:
    """Return something of the module ``select`` as it is without gevent."""
    if "gevent.monkey" in sys.modules:
        return sys.modules["gevent.monkey"].get_original("select", name)
    return getattr(select, name)


class Poller:
    """Waits for sockets to be writable, or to be closed by their other end. One thread waits; any may ring it.

    Under gevent the sockets are not in the loop's own poll, but in an epoll of their own, for which the loop waits. The
    server closes sockets when it likes, and libev aborts the process if one of its own is closed.

    :param once: whether the end of a socket is reported only once.
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
        """Have :meth:`wait` return, now or when it is called next."""
        with contextlib.suppress(OSError):  # full: it rings already; closed: nobody is left to wake
            self._far.send(b"!")

    def add(self, number: int) -> None:
        """Wait for a descriptor's other end to leave. Any thread may call this."""
        # No EPOLLIN: a request that the client sends ahead is not read.
        try:
            self._epoll.register(number, self._flags)
        except FileExistsError:
            self._epoll.modify(number, self._flags)

    def set_writable(self, number: int, wanted: bool) -> None:
        """Wait for a descriptor to be writable, too; or no more."""
        self._epoll.modify(number, self._flags | (select.EPOLLOUT if wanted else 0))

    def remove(self, number: int) -> None:
        """Wait for a descriptor no more. Call it before the descriptor is closed. Any thread may call this."""
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(number)

    def at_end(self, number: int) -> bool:
        """Return whether a descriptor's other end has left. It never blocks."""
        asked = _original("poll")()
        asked.register(number, select.POLLRDHUP)
        return bool(asked.poll(0))

    def wait(self, timeout: float) -> list[tuple[int, bool]]:
        """Return the descriptors at which something has happened, and for each whether its other end has left.

        :param timeout: seconds to wait at most.
        """
        if self._greenlets:
            # Not select(), which takes no descriptor above 1,023.
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
        """Release its descriptors."""
        self._epoll.close()
        self._far.close()
        self._near.close()
