"""AppStream: a stream of an application under test, without a server and without a network."""

from __future__ import annotations

import collections
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder, run_wsgi_app

from ssehub.wire import Decoder, Message

#: What a page does not see unless it asks for it; a gap it should.
_HIDDEN = ("ssehub.open", "ssehub.cursor")
#: Chunks that wait to be read; then the application waits, as for a reader that is slow.
_WINDOW = 64


class AppStream(Iterator[Message]):
    """Be the only client of one stream: iterate its messages, and close it to leave.

    The application runs in a thread of its own, ``ssehub-app-stream``, as in a server. When this is made, the stream
    has begun: what is sent from then on arrives. One thread reads.

    The events ``ssehub.open`` and ``ssehub.cursor`` are left out; ``ssehub.gap`` comes.

    :ivar timeout: seconds to wait for the next message; may be changed.
    :ivar status: of the answer, a number.
    :ivar headers: of the answer.
    :ivar opened: what the hub's first event said, ``session_id`` and ``client_id``; empty if it is no hub's stream.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], environ: dict[str, Any], timeout: float) -> None:
        self._app = app
        self.timeout = timeout
        self._chunks: queue.Queue[bytes | BaseException | None] = queue.Queue(_WINDOW)
        self._ready: collections.deque[Message] = collections.deque()
        self._decoder = Decoder(max_event_size=1 << 40)
        self._leaving = self._over = False
        # A hub notices that a client has left by its socket.
        self._socket, self._servers = socket.socketpair()
        self._environ = {**environ, "werkzeug.socket": self._servers}
        self.status = 0
        self.headers = Headers()
        self.opened: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, name="ssehub-app-stream", daemon=True)
        self._thread.start()
        try:
            self._take(time.monotonic() + timeout)
        except BaseException:
            self.close()
            raise

    @property
    def last_event_id(self) -> str:
        """The id of what was read last; a client would come back with it."""
        return self._decoder.last_event_id

    def __next__(self) -> Message:
        """Return the next message, or raise what the application has raised.

        :raises TimeoutError: if none comes in time.
        """
        deadline = time.monotonic() + self.timeout
        while not self._ready:
            if self._over:
                raise StopIteration
            self._take(deadline)
        return self._ready.popleft()

    def read(self, count: int) -> list[Message]:
        """Return the next so many messages; fewer if the stream ends.

        :raises TimeoutError: if one does not come in time.
        """
        return [message for _, message in zip(range(count), self, strict=False)]

    def close(self) -> None:
        """Leave, as a browser does, and wait until the application has ended the stream. Idempotent.

        :raises TimeoutError: if it does not.
        """
        self._leaving = True
        self._socket.close()
        deadline = time.monotonic() + self.timeout
        while self._thread.is_alive():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the application has not ended the stream for {self.timeout} s")
            while not self._chunks.empty():  # its thread may wait to put one more
                self._chunks.get()
            self._thread.join(0.002)
        self._over = True

    def __enter__(self) -> AppStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _take(self, deadline: float) -> None:
        """Take one chunk, or the end."""
        try:
            chunk = self._chunks.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise TimeoutError("the stream is silent: no message has come in time") from None
        if not isinstance(chunk, bytes):
            self._over = True
            if chunk is not None:
                raise chunk
            return
        for message in self._decoder.feed(chunk):
            if message.event == "ssehub.open":
                self.opened = message.json()
            if message.event not in _HIDDEN:
                self._ready.append(message)

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            self._iterate()
        except BaseException as error:
            end = error
        self._servers.close()
        if not self._leaving:
            self._chunks.put(end)

    def _iterate(self) -> None:
        chunks, status, headers = run_wsgi_app(self._app, self._environ)
        self.status, self.headers = int(status.split()[0]), headers
        try:
            for chunk in chunks:
                if chunk and not self._leaving:
                    self._chunks.put(chunk)
                if self._leaving:
                    break
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()


def stream(
    app: Callable[..., Iterable[bytes]],
    path: str = "/",
    *,
    headers: Mapping[str, str] | None = None,
    last_event_id: str = "",
    timeout: float = 5.0,
) -> AppStream:
    """Open a stream of a WSGI application: a Flask application, Django's ``get_wsgi_application()``, any other.

    :param path: path and query.
    :param headers: of the request; a cookie, say.
    :param last_event_id: for a client that comes back.
    :param timeout: seconds to wait for each message, and for the application when the stream is opened or closed.
    :returns: an iterator over its messages, and a context manager that closes it.
    :raises TimeoutError: if the application does not answer.
    """
    fields = Headers(headers)
    if last_event_id:
        fields["Last-Event-ID"] = last_event_id
    environ = EnvironBuilder(path=path, headers=fields).get_environ()
    return AppStream(app, environ, timeout)
