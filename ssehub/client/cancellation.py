"""Cancellation: cuts off, from any thread, what one attempt to follow a stream is blocked in."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from urllib3 import connection, connectionpool

from ssehub.client.bounded_response import BoundedResponse


class Cancellation:
    """Hold the sockets of one attempt, and wake whoever is blocked on them, or in :meth:`wait`.

    Everything here may be called from any thread, from callbacks and from signal handlers.
    """

    def __init__(self) -> None:
        self.cancelled: bool = False
        #: The last answer, whose reader closes it, or the transport if there is none: a hook of the session may fail.
        self.answer: requests.Response | None = None
        # Both may be entered by a signal handler in the thread that is inside already.
        self._lock = threading.RLock()
        self._waker: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._sockets: list[socket.socket] = []

    def watch(self, connected: Any) -> None:
        """Take note of a socket, so that :meth:`cancel` reaches it. One that comes too late is cut off at once."""
        # A duplicate acts on the same connection: wrap_socket() detaches the object there was before the handshake,
        # and the one there is after it would, shut down, take what is encrypted for plain text.
        with contextlib.suppress(OSError), self._lock:
            self._sockets.append(socket.socket(fileno=os.dup(connected.fileno())))
            if self.cancelled:
                self._shut_down()

    def cancel(self) -> None:
        """Wake whoever is blocked; what he reads next is an end or an error. Idempotent; never blocks."""
        self.cancelled = True
        self._waker.put(None)
        with self._lock:
            self._shut_down()

    def wait(self, seconds: float) -> None:
        """Block for a time, or until cancelled."""
        with contextlib.suppress(queue.Empty):
            self._waker.get(timeout=seconds)

    def release(self) -> None:
        """Let go of the sockets. Called when the response is closed: the other side sees its end only then."""
        with self._lock:
            while self._sockets:
                self._sockets.pop().close()

    def _shut_down(self) -> None:
        # Not close(): the thread that is blocked would not wake. Nor is the response ours to close: that would block on
        # a lock of its reader's.
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


_current: ContextVar[Cancellation | None] = ContextVar("ssehub_cancellation", default=None)


@contextlib.contextmanager
def connecting(cancellation: Cancellation) -> Iterator[None]:
    """Let the cancellation watch what this thread connects through a :class:`WatchedAdapter`."""
    token = _current.set(cancellation)
    try:
        yield
    finally:
        _current.reset(token)


def _watch(connected: Any) -> None:
    cancellation = _current.get()
    if cancellation is not None and connected is not None:
        cancellation.watch(connected)


# These have urllib3's names, because its error messages show them.


class HTTPConnection(connection.HTTPConnection):
    """A connection whose socket is watched from the moment there is one, before the TLS handshake."""

    response_class: Any = BoundedResponse

    def _new_conn(self) -> socket.socket:
        connected = super()._new_conn()
        _watch(connected)
        return connected

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request; called by ``urllib3``."""
        # The connection may have been used before, for a redirect or an attempt that was refused.
        _watch(self.sock)
        super().request(*args, **kwargs)


class HTTPSConnection(HTTPConnection, connection.HTTPSConnection):
    """The same with TLS."""


class HTTPConnectionPool(connectionpool.HTTPConnectionPool):
    """A pool of watched connections."""

    ConnectionCls = HTTPConnection


class HTTPSConnectionPool(connectionpool.HTTPSConnectionPool):
    """A pool of watched connections with TLS."""

    ConnectionCls = HTTPSConnection


_POOLS = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}


class WatchedAdapter(HTTPAdapter):
    """A ``requests`` adapter whose connections can be cut off in every phase but name lookup and TCP connect.

    A :class:`~ssehub.Client` puts it in the place of each plain ``HTTPAdapter``.
    """

    @classmethod
    def instead_of(cls, adapter: HTTPAdapter) -> WatchedAdapter:
        """Make one with the settings of a plain adapter: its retries, the size of its pools, its TLS context."""
        ours: Any = cls.__new__(cls)
        ours.__setstate__(adapter.__getstate__())
        ours.poolmanager.connection_pool_kw.update(adapter.poolmanager.connection_pool_kw)
        return cast("WatchedAdapter", ours)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool manager; called by ``requests``."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; called by ``requests``."""
        answer = super().send(*args, **kwargs)
        if (cancellation := _current.get()) is not None:
            cancellation.answer = answer
        return answer

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Make a proxy's pool manager; called by ``requests``. One for SOCKS has connections of its own kind."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager
