"""AppStream: a stream of an application under test, without a server and without a network."""

from __future__ import annotations

import collections
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder, run_wsgi_app

from ssehub.events import Decoder, Received
from ssehub.exceptions import SSEHubError
from ssehub.server.connection import Connection
from ssehub.wsgi.directory import Directory
from ssehub.wsgi.hub_core import hubs

#: What a page does not see unless it asks for it; a gap it should.
_HIDDEN = ("ssehub.open", "ssehub.cursor")
#: Bytes that may wait to be read, roughly; then the application waits, as for a reader that is slow.
_BUFFER = 1 << 14
#: What answers a request without a login: 401, 403, or a redirect to the form.
_NO_LOGIN = (301, 302, 303, 307, 308, 401, 403)
#: Bytes of one read.
_READ = 1 << 16


class NotAStream(SSEHubError):
    """The application has answered with something else than an event stream, a 401 for instance."""


class AppStream(Iterator[Received]):
    """Be the only client of one stream: iterate its messages, and close it to leave.

    The application runs in a thread of its own, ``ssehub-app-stream``, and answers through a pair of sockets, as in a
    server with several threads. When this is made, the stream has begun: what is sent from then on arrives. One thread
    reads.

    The events ``ssehub.open`` and ``ssehub.cursor`` are left out; ``ssehub.gap`` comes.

    :ivar timeout: seconds to wait for the next message; may be changed.
    :ivar status: of the answer, a number.
    :ivar headers: of the answer.
    :ivar opened: what the hub's first event said, ``session_id`` and ``client_id``; empty if it is no hub's stream.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], environ: dict[str, Any], timeout: float) -> None:
        self._app = app
        self.timeout = timeout
        self._ready: collections.deque[Received] = collections.deque()
        self._decoder = Decoder(max_event_size=1 << 40)
        #: The head of the answer, as far as it has come; None once it is whole.
        self._head: bytes | None = b""
        self._error: BaseException | None = None
        self._connection: Connection | None = None
        self._leaving = self._over = False
        self._socket, self._servers = socket.socketpair()
        self._servers.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        # A hub notices by the socket that a client has left, and may take it over.
        self._environ = {**environ, "werkzeug.socket": self._servers}
        self.status: int = 0
        self._status = "nothing"
        self.headers: Headers = Headers()
        self.opened: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, name="ssehub-app-stream", daemon=True)
        self._thread.start()
        try:
            while not self._take(time.monotonic() + timeout):
                pass
        except BaseException:
            self.close()
            raise

    @property
    def last_event_id(self) -> str:
        """The id of what was read last; a client would come back with it."""
        return self._decoder.last_event_id

    def __next__(self) -> Received:
        """Return the next message, or raise what the application has raised.

        :raises TimeoutError: if none comes in time.
        :raises NotAStream: if the application has answered with something else than a stream.
        """
        if not self._is_stream:
            raise NotAStream(self._said)
        deadline = time.monotonic() + self.timeout
        while not self._ready:
            if self._over:
                raise StopIteration
            self._take(deadline)
        return self._ready.popleft()

    def read(self, count: int) -> list[Received]:
        """Return the next so many messages; fewer if the stream ends.

        :raises TimeoutError: if one does not come in time.
        :raises NotAStream: if the application has answered with something else than a stream.
        """
        return [message for _, message in zip(range(count), self, strict=False)]

    @property
    def _is_stream(self) -> bool:
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return self.status == 200 and kind == "text/event-stream"

    @property
    def _said(self) -> str:
        """What the application has answered, in one line."""
        where = f"; Location: {self.headers['Location']}" if "Location" in self.headers else ""
        hint = "; a stream of a user who is logged in takes the cookies of a test client: cookies="
        return f"the application answered {self._status}, not with a stream{where}{hint * (self.status in _NO_LOGIN)}"

    def close(self) -> None:
        """Leave, as a browser does, and wait until the application has ended the stream. Idempotent.

        :raises TimeoutError: if it does not.
        """
        self._leaving = self._over = True
        deadline = time.monotonic() + self.timeout
        with contextlib.suppress(OSError):  # the other end is closed
            self._socket.shutdown(socket.SHUT_WR)
        while self._receive(deadline, f"the application has not ended the stream for {self.timeout} s"):
            pass
        self._thread.join(max(0.0, deadline - time.monotonic()))
        # A stream that has left its thread ends in one of the hub's.
        has_ended = self._connection is None or self._connection.wait(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive() or not has_ended:
            raise TimeoutError(f"the application has not ended the stream for {self.timeout} s")
        self._socket.close()

    def __enter__(self) -> AppStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _take(self, deadline: float) -> bool:
        """Take what has come; return whether the body or the end was among it."""
        data = self._receive(deadline, "the stream is silent: no message has come in time")
        if not data:
            self._over = True
            if self._error is not None:
                raise self._error
            return True
        if self._head is not None:
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            self._head = None if end else head
        for message in self._decoder.feed(data):
            if message.event == "ssehub.open":
                self.opened = message.json()
                self._connection = _find(self.opened.get("session_id"))
            if message.event not in _HIDDEN:
                self._ready.append(message)
        return bool(data)

    def _receive(self, deadline: float, late: str) -> bytes:
        """Return the next bytes; none at the end.

        :raises TimeoutError: if they do not come in time.
        """
        if self._socket.fileno() < 0:
            return b""
        self._socket.settimeout(max(1e-6, deadline - time.monotonic()))
        try:
            return self._socket.recv(_READ)
        except TimeoutError:
            raise TimeoutError(late) from None
        except ConnectionError:
            return b""

    # What follows runs in the application's thread.

    def _run(self) -> None:
        try:
            self._iterate()
        except BaseException as error:
            self._error = error
        self._servers.close()

    def _iterate(self) -> None:
        chunks, status, headers = run_wsgi_app(self._app, self._environ)
        self.status, self._status, self.headers = int(status.split()[0]), status, headers
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = f"HTTP/1.1 {status}\r\n{fields}\r\n".encode("latin-1")
        try:
            for chunk in chunks:
                if self._leaving:
                    break
                if chunk:
                    # As in a server, the head leaves with the first bytes.
                    self._servers.sendall(head + chunk)
                    head = b""
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()


def _find(session_id: Any) -> Connection | None:
    """Return a connection of this process."""
    here = [hub for hub in hubs() if isinstance(hub, Directory)]
    return next((one for hub in here for one in hub.connections() if one.id == session_id), None)


def stream(
    app: Callable[..., Iterable[bytes]],
    path: str = "/",
    *,
    headers: Mapping[str, str] | None = None,
    cookies: Mapping[str, Any] | None = None,
    last_event_id: str = "",
    timeout: float = 5.0,
) -> AppStream:
    """Open a stream of a WSGI application: a Flask application, Django's ``get_wsgi_application()``, any other.

    :param path: path and query.
    :param headers: of the request.
    :param cookies: of the request, by name: texts, or objects whose ``value`` is the text. Those of Django's test
        client are ``client.cookies``; of Flask's, ``{"session": client.get_cookie("session")}``.
    :param last_event_id: for a client that comes back.
    :param timeout: seconds to wait for each message, and for the application when the stream is opened or closed.
    :returns: an iterator over its messages, and a context manager that closes it.
    :raises TimeoutError: if the application does not answer.
    """
    fields = Headers(headers)
    if last_event_id:
        fields["Last-Event-ID"] = last_event_id
    if cookies:
        values = {name: getattr(cookie, "value", cookie) for name, cookie in cookies.items()}
        fields.add("Cookie", "; ".join(f"{name}={value}" for name, value in values.items()))
    here = {"REMOTE_ADDR": "127.0.0.1"}
    environ = EnvironBuilder(path=path, headers=fields, multithread=True, environ_base=here).get_environ()
    return AppStream(app, environ, timeout)
