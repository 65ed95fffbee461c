"""Arrivals: limits the duration of requests. A client that never finishes its request occupies a server thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Arrivals:
    """Closes connections whose requests take too long, and the oldest ones if there are too many.

    It is also a WSGI middleware: a connection is not watched any more once its response is an event stream.
    Thread-safe.

    :param app: the application.
    :param seconds: maximum total time in which a request arrives and is answered. A request that has not arrived by
        then is answered with a 408.
    :param most: maximum number of concurrent requests.
    :raises ValueError: if the time is not positive.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], seconds: float = 30.0, most: int = 256) -> None:
        if not 0 < seconds < threading.TIMEOUT_MAX:
            raise ValueError(f"request-timeout must be a positive number of seconds, not {seconds:g}")
        self._app = app
        self._seconds = seconds
        self._most = most
        self._lock = threading.Lock()
        #: The time at which each request has to be finished (``time.monotonic()``), oldest first.
        self._due: dict[socket.socket, float] = {}
        self._answered: set[socket.socket] = set()

    def begin(self, connection: socket.socket) -> None:
        """Start watching a connection, on which a request is expected."""
        with self._lock:
            if len(self._due) >= self._most:
                self._cut(next(iter(self._due)))
            self._due[connection] = time.monotonic() + self._seconds

    def end(self, connection: socket.socket) -> None:
        """Stop watching a connection. Has to be called before its socket is closed."""
        with self._lock:
            self._forget(connection)

    def enforce(self) -> None:
        """Close the connections whose time is over. Has to be called periodically."""
        now = time.monotonic()
        with self._lock:
            for connection in [one for one, due in self._due.items() if due <= now]:
                self._cut(connection)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, and note that it is answered."""
        connection = environ["werkzeug.socket"]

        def _start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            is_stream = any(name.lower() == "content-type" and "event-stream" in value for name, value in headers)
            with self._lock:
                if is_stream:
                    self._forget(connection)
                else:
                    self._answered.add(connection)
            return start_response(status, headers, *more)

        return self._app(environ, _start)

    # These methods are called with the lock held: a socket in the table has not been closed.

    def _forget(self, connection: socket.socket) -> None:
        self._due.pop(connection, None)
        self._answered.discard(connection)

    def _cut(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if connection not in self._answered:
                connection.send(_TIMEOUT, socket.MSG_DONTWAIT)
            connection.shutdown(socket.SHUT_RDWR)
        self._forget(connection)
