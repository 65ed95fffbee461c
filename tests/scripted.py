"""A server on real sockets that a test's script controls. The script sends HTTP as bytes, with or without TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ssehub import Backoff
from tests.streams import GUARD

#: A self-signed certificate for localhost and 127.0.0.1, with its key.
CERTIFICATE = Path(__file__).parent / "data" / "localhost.pem"

#: The beginnings of responses.
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"

REFUSED = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n"
NO_MORE = REFUSED % 204

#: Short waits before reconnections, so that tests are fast.
QUICK = Backoff(initial=0.001, maximum=0.01)


class Exchange:
    """A request, and methods to answer it."""

    def __init__(self, server: Server, connection: socket.socket, number: int, head: bytes, body: bytes) -> None:
        self.server = server
        self.connection = connection
        #: The number of the request, counting from 1.
        self.number = number
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {name.lower(): value.strip(" ") for name, _, value in (line.partition(":") for line in lines)}
        self.body = body

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def chunk(self, data: bytes) -> None:
        """Send a piece of a chunked response."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def hold(self) -> None:
        """Keep the connection open until the client closes it or the test ends."""
        with contextlib.suppress(OSError):
            while self.connection.recv(65536):
                pass


Script = Callable[[Exchange], object]


class Server:
    """A server that calls a script for each request. If the script does not return True, it closes the connection."""

    def __init__(self, script: Script, tls: bool = False, handshake: bool = True) -> None:
        self.script = script
        self.requests: list[Exchange] = []
        #: The number of accepted connections. A test can wait for them before there is a request.
        self.accepted = 0
        self._context: ssl.SSLContext | None = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(CERTIFICATE)
        self._handshake = handshake
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closing = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Close all connections, and wait for the threads."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(one, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(GUARD)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
                self.accepted += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        raw = connection
        try:
            with contextlib.suppress(OSError, ValueError):
                if self._context is not None:
                    if not self._handshake:
                        while connection.recv(65536):
                            pass
                        return
                    connection = self._context.wrap_socket(connection, server_side=True)
                    with self._lock:
                        self._open.add(connection)
                for head, body in _requests(connection):
                    with self._lock:
                        exchange = Exchange(self, connection, len(self.requests) + 1, head, body)
                        self.requests.append(exchange)
                    if self.script(exchange) is not True:
                        return
        finally:
            with self._lock:
                self._open -= {raw, connection}
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_WR)
            connection.close()
            raw.close()


def _requests(connection: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            piece = connection.recv(65536)
            if not piece:
                return
            buffer += piece
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        while len(buffer) < length:
            buffer += connection.recv(65536)
        body, buffer = buffer[:length], buffer[length:]
        yield head, body


def bodies(*parts: bytes | str) -> Callable[[Exchange], None]:
    """Return a script that answers the n-th request with the n-th part, and later requests with status 204.

    :param parts: a str is the body of a stream; bytes are a whole response.
    """

    def script(exchange: Exchange) -> None:
        if exchange.number > len(parts):
            exchange.send(NO_MORE)
            return
        part = parts[exchange.number - 1]
        exchange.send(part if isinstance(part, bytes) else STREAM + part.encode())

    return script


def held(data: bytes = b"") -> Callable[[Exchange], None]:
    """Return a script that sends some bytes, and then keeps the connection open."""

    def script(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.hold()

    return script
