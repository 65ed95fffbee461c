"""AppStream: a stream of an application under test, without a server and a network."""

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

#: Events that a page does not see unless it asks for them. A gap is not one of them.
_HIDDEN = ("ssehub.open", "ssehub.cursor")
#: Approximate number of unread bytes after which the application has to wait, as for a slow client.
_BUFFER = 1 << 14
#: Statuses of responses to a request without a login: 401, 403, or a redirect to the login form.
_NO_LOGIN = (301, 302, 303, 307, 308, 401, 403)
#: Maximum number of bytes of one read.
_READ = 1 << 16


class NotAStream(SSEHubError):
    """The application's response is not an event stream but, for example, a 401."""


class AppStream(Iterator[Received]):
    """The client of one stream: iterate its messages, and close it to disconnect.

    The application runs in a thread of its own, ``ssehub-app-stream``, and answers through a pair of sockets, as in a
    server with several threads. When the constructor returns, the stream has begun: messages that you send from then on
    arrive. Only one thread may read.

    The events ``ssehub.open`` and ``ssehub.cursor`` are left out; ``ssehub.gap`` is not.

    :ivar timeout: seconds to wait for the next message; you can change it.
    :ivar status: the status code of the response.
    :ivar headers: the headers of the response.
    :ivar opened: the data of the hub's first event, ``session_id`` and ``client_id``; empty if the stream is not that
        of a hub.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], environ: dict[str, Any], timeout: float) -> None:
        self._app = app
        self.timeout = timeout
        self._ready: collections.deque[Received] = collections.deque()
        self._decoder = Decoder(max_event_size=1 << 40)
        #: The part of the response's head that has arrived; None once the head is complete.
        self._head: bytes | None = b""
        self._error: BaseException | None = None
        self._connection: Connection | None = None
        self._leaving = self._over = False
        self._socket, self._servers = socket.socketpair()
        self._servers.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        # Through the socket a hub notices that the client has disconnected, and it may take the socket over.
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
        """The id of the last event that was read. A client would send it when it reconnects."""
        return self._decoder.last_event_id

    def __next__(self) -> Received:
        """Return the next message. An error of the application is raised here.

        :raises TimeoutError: if no message arrives in time.
        :raises NotAStream: if the application's response is not a stream.
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
        """Return the next *count* messages; fewer if the stream ends.

        :raises TimeoutError: if a message does not arrive in time.
        :raises NotAStream: if the application's response is not a stream.
        """
        return [message for _, message in zip(range(count), self, strict=False)]

    @property
    def _is_stream(self) -> bool:
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return self.status == 200 and kind == "text/event-stream"

    @property
    def _said(self) -> str:
        """The application's response in one line."""
        where = f"; Location: {self.headers['Location']}" if "Location" in self.headers else ""
        hint = "; for a stream of a logged-in user, pass the cookies of a test client: cookies="
        return f"the application answered {self._status}, not with a stream{where}{hint * (self.status in _NO_LOGIN)}"

    def close(self) -> None:
        """Disconnect as a browser does, and wait until the application has ended the stream. Idempotent.

        :raises TimeoutError: if it does not end the stream in time.
        """
        self._leaving = self._over = True
        deadline = time.monotonic() + self.timeout
        with contextlib.suppress(OSError):  # the other end is already closed
            self._socket.shutdown(socket.SHUT_WR)
        while self._receive(deadline, f"the application has not ended the stream within {self.timeout} s"):
            pass
        self._thread.join(max(0.0, deadline - time.monotonic()))
        # A stream that has left its thread ends in a thread of the hub.
        has_ended = self._connection is None or self._connection.wait(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive() or not has_ended:
            raise TimeoutError(f"the application has not ended the stream within {self.timeout} s")
        self._socket.close()

    def __enter__(self) -> AppStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _take(self, deadline: float) -> bool:
        """Process the data that has arrived. Return whether it included a part of the body, or the end."""
        data = self._receive(deadline, "no message arrived in time")
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
        """Return the next bytes; empty at the end.

        :raises TimeoutError: if none arrive in time.
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

    # The following methods run in the application's thread.

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
                    # As in a server, the head is sent with the first bytes.
                    self._servers.sendall(head + chunk)
                    head = b""
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()


def _find(session_id: Any) -> Connection | None:
    """Return a connection of this process, by its session id."""
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

    :param path: path and query of the request.
    :param headers: headers of the request.
    :param cookies: cookies of the request by name: texts, or objects whose ``value`` is the text. With Django's test
        client pass ``client.cookies``; with Flask's, ``{"session": client.get_cookie("session")}``.
    :param last_event_id: the last event id of a client that reconnects.
    :param timeout: seconds to wait for each message, and for the application when the stream is opened or closed.
    :returns: an iterator over the messages, which is also a context manager that closes the stream.
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
