"""Cancellation: aborts an attempt to follow a stream, from any thread and in any phase."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import queue
import socket
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import PoolManager, connection, connectionpool

from ssehub.client.body import beginning
from ssehub.client.bounded_response import BoundedResponse

#: Bytes that are read of the body of a challenge, and seconds to wait for them, at the most. A connection on which more
#: is left is closed, and NTLM needs the same one for its answer.
_CHALLENGE, _SOON = 65_536, 1.0


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


class HTTPConnectionPool(connectionpool.HTTPConnectionPool):
    """A pool of watched connections. A stream does not wait until another one leaves it a place."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.pop("block", None)
        super().__init__(*args, **options)


class WatchedAdapter(HTTPAdapter):
    """The methods that replace those of a session's adapter: connections can be cut off, and their heads are bounded.

    Connections cannot be cut off during the name lookup and the TCP connect. The class of an object derives from this
    one and from the adapter's class, and the object shares the adapter's state (:func:`ssehub.client.watched.sharing`).
    """

    _original: HTTPAdapter

    @property
    def poolmanager(self) -> Any:
        """The adapter's pool manager, with pools of watched connections."""
        return _watched(self._original.poolmanager)

    @poolmanager.setter
    def poolmanager(self, manager: Any) -> None:
        """Set the adapter's pool manager."""
        self._original.poolmanager = manager

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request. Called by ``requests``."""
        answer = super().send(*args, **kwargs)
        if (cancellation := _current.get()) is not None:
            cancellation.answer = answer
        if answer.status_code in (401, 407) and answer.request.hooks["response"]:
            # Authentication works in hooks, which read all of the body before they answer the challenge.
            beginning(answer, _CHALLENGE, _SOON)
        return answer

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Return a proxy's pool manager, with pools of watched connections; called by ``requests``."""
        return _watched(super().proxy_manager_for(proxy, **kwargs))

    def __del__(self) -> None:
        """Leave open what the user's adapter still has."""


def _watched(manager: Any) -> Any:
    """Return a pool manager that makes watched pools, and keeps them under keys of their own among those of another.

    So closing the other manager also closes these pools, but its users never get a watched pool.
    """
    if not isinstance(manager, PoolManager):
        return manager
    ours = copy.copy(manager)
    ours.pool_classes_by_scheme = {
        scheme: _watched_pool(kind) for scheme, kind in manager.pool_classes_by_scheme.items()
    }
    ours.key_fn_by_scheme = {
        scheme: functools.partial(_own_key, key) for scheme, key in manager.key_fn_by_scheme.items()
    }
    return ours


def _own_key(key: Any, context: dict[str, Any]) -> Any:
    return WatchedAdapter, key(context)


@functools.cache
def _watched_pool(kind: Any) -> Any:
    # urllib3's error messages show these names.
    made = type(kind.ConnectionCls.__name__, (HTTPConnection, kind.ConnectionCls), {})
    return type(kind.__name__, (HTTPConnectionPool, kind), {"ConnectionCls": made})
