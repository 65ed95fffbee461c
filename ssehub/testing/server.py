"""Server: an application under test on a real port of this machine."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

#: Seconds between two checks whether the server has to stop.
_LOOK = 0.02


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log nothing, because the log of this server does not belong in a test's output."""


class _Listener(ThreadedWSGIServer):
    """Keeps a list of the open connections and of the threads that serve requests."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        super().__init__("127.0.0.1", 0, app, _Handler)
        self.open: dict[Any, threading.Thread] = {}
        #: Duplicates of the clients' sockets. A hub that takes a stream over replaces the server's own.
        self.clients: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self._forget_ended()
        self.clients.append(request.dup())
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), name="ssehub-test-request", daemon=True
        )
        self.open[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        self.open.pop(request, None)
        super().shutdown_request(request)

    def cut(self) -> None:
        """End all connections. Call it after the server accepts no more."""
        while self.clients:
            with contextlib.closing(self.clients.pop()) as client, contextlib.suppress(OSError):  # already ended
                client.shutdown(socket.SHUT_RDWR)

    def _forget_ended(self) -> None:
        poll = select.poll()
        for client in self.clients:
            poll.register(client, 0)  # POLLHUP and POLLERR are always reported
        ended = {number for number, _ in poll.poll(0)}
        for client in self.clients:
            if client.fileno() in ended:
                client.close()
        self.clients = [client for client in self.clients if client.fileno() >= 0]


class Server:
    """Serves a WSGI application over HTTP/1.1, each request in a thread, until it is closed.

    :ivar port: the port that it listens on, at 127.0.0.1.
    :ivar url: ``http://127.0.0.1:port``.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._listener = _Listener(app)
        self.port: int = int(self._listener.server_address[1])
        self.url: str = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._listener.serve_forever, args=(_LOOK,), name="ssehub-test-server", daemon=True
        )
        self._thread.start()

    def close(self, timeout: float = 5.0) -> None:
        """Cut all connections, as in a crash of the server, and wait for their threads. Idempotent.

        :param timeout: seconds to wait.
        :raises TimeoutError: if the application has not ended a request by then.
        """
        self._listener.shutdown()
        self._thread.join()
        deadline = time.monotonic() + timeout
        left = list(self._listener.open.values())
        self._listener.cut()
        for thread in left:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError(f"the application has not ended a request within {timeout} s")


@contextmanager
def serve(app: Callable[..., Iterable[bytes]]) -> Iterator[Server]:
    """Serve an application until the end of the ``with`` block."""
    server = Server(app)
    try:
        yield server
    finally:
        server.close()
