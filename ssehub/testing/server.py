"""Server: an application under test on a real port of this machine."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

#: Seconds between two looks at whether it is to stop.
_LOOK = 0.02


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing: the test's output is no server's log."""


class _Listener(ThreadedWSGIServer):
    """Know the connections that are open, to cut them at the end; their threads are waited for."""

    daemon_threads = False

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        super().__init__("127.0.0.1", 0, app, _Handler)
        self._open: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        for request in list(self._open):
            with contextlib.suppress(OSError):  # it has just ended
                request.shutdown(socket.SHUT_RDWR)


class Server:
    """Serve a WSGI application over HTTP/1.1, each request in a thread, until it is closed.

    :ivar port: where it listens, on 127.0.0.1.
    :ivar url: ``http://127.0.0.1:port``.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._listener = _Listener(app)
        self.port = int(self._listener.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._listener.serve_forever, args=(_LOOK,), name="ssehub-test-server", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Cut all connections, as a server that falls does, and wait for their threads. Idempotent."""
        self._listener.shutdown()
        self._thread.join()
        self._listener.cut()
        self._listener.server_close()


@contextmanager
def serve(app: Callable[..., Iterable[bytes]]) -> Iterator[Server]:
    """Serve an application as long as the block lasts."""
    server = Server(app)
    try:
        yield server
    finally:
        server.close()
