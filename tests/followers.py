"""Followers for tests: threads that read streams of a hub, directly or over a socket that the hub takes over."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from typing import Any

from ssehub import Connection, Decoder, Hub, Message
from tests.streams import until


class Follower:
    """A thread that reads one stream of a hub, as a server does, and keeps all events."""

    def __init__(self, hub: Hub, **options: Any) -> None:
        #: While this is clear, the thread does not read, like a client whose receive window is closed.
        self.reading = threading.Event()
        self.reading.set()
        self.chunks: list[bytes] = []
        self.events: list[Message] = []
        self.decoder = Decoder(options.get("last_event_id", ""))
        #: Over a socket, the hub's writer writes the stream; otherwise this thread iterates it.
        self._stream: Iterator[bytes] = (over_socket if options.pop("socket", hub.settings.detach) else Hub.stream)(
            hub, **options
        )
        self.leaving = False
        self._asked_after = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        until(lambda: self.events or not self._thread.is_alive(), "the first event")
        opened = self.events[0].json() if self.events else {}
        self.session_id: str = opened.get("session_id", "")

    def _run(self) -> None:
        for chunk in self._stream:
            self.chunks.append(chunk)
            self.events += self.decoder.feed(chunk)
            self.reading.wait()
            self._asked_after = len(self.chunks)
            if self.leaving:
                break
        self._stream.close()  # type: ignore[attr-defined]

    def stop_reading(self) -> None:
        """Stop reading after the next chunk."""
        until(lambda: self._asked_after == len(self.chunks), "the reader to ask for more")
        self.reading.clear()

    @property
    def texts(self) -> list[str | None]:
        """The data of all messages so far. A gap is shown as its reason and number."""
        return [
            f"gap {event.json()['reason']} {event.json()['missed']}" if event.event == "ssehub.gap" else event.data
            for event in self.events
            if event.event == "ssehub.gap" or not event.event.startswith("ssehub.")
        ]

    def wait_for(self, *texts: str) -> None:
        """Wait until exactly these messages were received."""
        until(lambda: self.texts == list(texts), f"{texts} but got {self.texts[-20:]}")

    def wait_for_last(self, text: str) -> None:
        """Wait until this message was received last."""
        until(lambda: self.texts and self.texts[-1] == text, f"{text} but got {self.texts[-3:]}")

    def leave(self, hub: Hub) -> None:
        """Close the stream at the next chunk, and send a message to make one come."""
        self.leaving = True
        self.reading.set()
        for connection in hub.connections():
            if connection.id == self.session_id:
                connection.send("go")
        self.join()

    def join(self) -> None:
        """Wait for the end of the stream."""
        self.reading.set()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the stream does not end"


def over_socket(hub: Hub, *, last_event_id: str = "", **options: Any) -> Iterator[bytes]:
    """Read a stream over a socket, as a client of a small WSGI server that shows the socket. Its buffers are tiny."""
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
    environ = {
        "REQUEST_METHOD": "GET",
        "gunicorn.socket": near,
        "wsgi.multithread": True,
        "HTTP_LAST_EVENT_ID": last_event_id,
    }
    answer = hub.connect({**environ, "wsgi.url_scheme": "http", "SERVER_NAME": "x", "SERVER_PORT": "1"}, **options)
    serving = threading.Thread(target=_serve, args=(answer, environ, near), daemon=True)
    serving.start()
    response = http.client.HTTPResponse(far)
    try:
        with contextlib.suppress(http.client.HTTPException, ConnectionError, ValueError):  # cut in the middle
            response.begin()
            while chunk := response.read1(65536):
                yield chunk
    finally:
        response.close()
        far.close()
        serving.join()


def _serve(answer: Any, environ: dict[str, Any], near: socket.socket) -> None:
    """Answer one request with a chunked response, as WSGI servers do."""

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        head.append(f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n")
        head.extend(f"{name}: {value}\r\n" for name, value in headers)

    head: list[str] = []
    with near, contextlib.suppress(OSError):
        body = answer(environ, start_response)
        head.append("\r\n")
        try:
            for chunk in body:
                near.sendall("".join(head).encode() + b"%x\r\n%b\r\n" % (len(chunk), chunk))
                head.clear()
            near.sendall(b"0\r\n\r\n")
        finally:
            body.close()


def only(hub: Hub) -> Connection:
    """Return the only connection of a hub."""
    (connection,) = hub.connections()
    return connection
