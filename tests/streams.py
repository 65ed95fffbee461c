"""A client for tests: one stream over a real socket, read event by event."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from ssehub import Decoder, Message

#: Seconds after which a test that waits has hung. Nothing is measured by it.
GUARD = 10.0


#: Every stream a test has opened, so that one that fails leaves none open.
opened_streams: list[Any] = []


class Stream:
    """An open event stream. What it reads it keeps apart: messages, and the hub's own events."""

    def __init__(
        self,
        port: int,
        path: str = "/",
        headers: dict[str, str] | None = None,
        method: str = "GET",
        connection: http.client.HTTPConnection | None = None,
    ) -> None:
        self._connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=GUARD)
        self._connection.request(method, path, headers=headers or {})
        assert self._connection.sock is not None
        self.socket: socket.socket = self._connection.sock
        self.response = self._connection.getresponse()
        self.decoder = Decoder()
        self.raw = b""
        self._ready: deque[Message] = deque()
        opened_streams.append(self)

    def event(self) -> Message:
        """Return the next event, whatever it is; EOFError at the end of the stream."""
        while not self._ready:
            chunk = self.response.read1(65536)
            if not chunk:
                raise EOFError
            self.raw += chunk
            self._ready.extend(self.decoder.feed(chunk))
        return self._ready.popleft()

    def opened(self) -> dict[str, Any]:
        """Read the first event, which says who we are."""
        first = self.event()
        assert first.event == "ssehub.open", first
        assert first.data is not None
        who = json.loads(first.data)
        assert isinstance(who, dict)
        return who

    def message(self) -> Message:
        """Return the next event that is not one of the hub's own, a gap excepted."""
        while True:
            event = self.event()
            if event.event == "ssehub.gap" or not event.event.startswith("ssehub."):
                return event

    def data(self, count: int) -> list[str]:
        """Return the data of the next so many messages."""
        return [self.message().data or "" for _ in range(count)]

    def rest(self) -> list[Message]:
        """Read to the end of the stream."""
        events: list[Message] = []
        with contextlib.suppress(EOFError):
            while True:
                events.append(self.event())
        return events

    def close(self) -> None:
        """Leave as a browser does."""
        self.response.close()
        self._connection.close()
        self.socket.close()

    def reset(self) -> None:
        """Leave without a word: the other side gets a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def call(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Make one request and return the status and the body, as JSON where it is JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GUARD)
    try:
        if isinstance(body, dict):
            body = urlencode(body)
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        is_json = "json" in response.headers.get("Content-Type", "")
        return response.status, json.loads(content) if is_json else content
    finally:
        connection.close()


def until(condition: Callable[[], Any], what: str = "", guard: float = GUARD) -> Any:
    """Wait until something holds; for what other threads or processes do in their own time."""
    deadline = time.monotonic() + guard
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain{': ' if what else ''}{what}")
        time.sleep(0.005)
    return result
