"""Cancellation: aborts an attempt to follow a stream, from any thread and in any phase."""

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
    """The sockets of one attempt. :meth:`cancel` wakes the threads that block on them or in :meth:`wait`.

    Every method may be called from any thread, from callbacks and from signal handlers.
    """

    def __init__(self) -> None:
        self.cancelled: bool = False
        #: The last response. Its reader closes it; or the transport, if a session hook failed before reading began.
        self.answer: requests.Response | None = None
        # Reentrant, because a signal handler may run in the thread that holds the lock.
        self._lock = threading.RLock()
        self._waker: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._sockets: list[socket.socket] = []

    def watch(self, connected: Any) -> None:
        """Add a socket, so that :meth:`cancel` reaches it. After :meth:`cancel` it is shut down at once."""
        # A duplicate acts on the same connection. The original does not work: wrap_socket() detaches it before the
        # handshake, and a shutdown of the TLS socket would make the reader take ciphertext for plain text.
        with contextlib.suppress(OSError), self._lock:
            self._sockets.append(socket.socket(fileno=os.dup(connected.fileno())))
            if self.cancelled:
                self._shut_down()

    def cancel(self) -> None:
        """Wake the blocked threads. Their next read returns an end or raises an error. Idempotent; never blocks."""
        self.cancelled = True
        self._waker.put(None)
        with self._lock:
            self._shut_down()

    def wait(self, seconds: float) -> None:
        """Block for a time, or until the attempt is cancelled."""
        with contextlib.suppress(queue.Empty):
            self._waker.get(timeout=seconds)

    def release(self) -> None:
        """Close the sockets. Called when the response is closed, because only then does the peer see the end."""
        with self._lock:
            while self._sockets:
                self._sockets.pop().close()

    def _shut_down(self) -> None:
        # close() would not wake the blocked thread. Closing the response would block on a lock that its reader
        # holds.
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


_current: ContextVar[Cancellation | None] = ContextVar("ssehub_cancellation", default=None)


@contextlib.contextmanager
def connecting(cancellation: Cancellation) -> Iterator[None]:
    """While this context is active, add the sockets of connections that this thread makes to the cancellation."""
    token = _current.set(cancellation)
    try:
        yield
    finally:
        _current.reset(token)


def _watch(connected: Any) -> None:
    cancellation = _current.get()
    if cancellation is not None and connected is not None:
        cancellation.watch(connected)


# These classes have urllib3's names, because urllib3's error messages show them.


class HTTPConnection(connection.HTTPConnection):
    """A connection whose socket is watched from its creation, before the TLS handshake."""

    response_class: Any = BoundedResponse

    def _new_conn(self) -> socket.socket:
        connected = super()._new_conn()
        _watch(connected)
        return connected

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request. Called by ``urllib3``."""
        # The connection may be reused after a redirect or a refused attempt.
        _watch(self.sock)
        super().request(*args, **kwargs)


class HTTPSConnection(HTTPConnection, connection.HTTPSConnection):
    """A watched connection with TLS."""


class HTTPConnectionPool(connectionpool.HTTPConnectionPool):
    """A pool of watched connections."""

    ConnectionCls = HTTPConnection


class HTTPSConnectionPool(connectionpool.HTTPSConnectionPool):
    """A pool of watched connections with TLS."""

    ConnectionCls = HTTPSConnection


_POOLS = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}


class WatchedAdapter(HTTPAdapter):
    """A ``requests`` adapter whose connections can be aborted in every phase except name lookup and TCP connect.

    A :class:`~ssehub.Client` replaces each plain ``HTTPAdapter`` by one.
    """

    @classmethod
    def instead_of(cls, adapter: HTTPAdapter) -> WatchedAdapter:
        """Return an adapter with the settings of a plain one: its retries, pool sizes and TLS context."""
        ours: Any = cls.__new__(cls)
        ours.__setstate__(adapter.__getstate__())
        ours.poolmanager.connection_pool_kw.update(adapter.poolmanager.connection_pool_kw)
        return cast("WatchedAdapter", ours)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pool manager. Called by ``requests``."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request. Called by ``requests``."""
        answer = super().send(*args, **kwargs)
        if (cancellation := _current.get()) is not None:
            cancellation.answer = answer
        return answer

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Create the pool manager of a proxy. Called by ``requests``. A SOCKS proxy has its own kind of connections."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager
