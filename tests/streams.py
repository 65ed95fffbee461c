"""A simple client for tests: it reads one stream over a real socket, event by event."""

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

#: Seconds after which a waiting test counts as hanging. It is not used for measurements.
GUARD = 20.0


#: All streams that a test has opened. They are closed after the test, even if it fails.
opened_streams: list[Any] = []


class Stream:
    """An open event stream. It distinguishes messages from the hub's own events."""

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
        """Return the next event of any type. Raise EOFError at the end of the stream."""
        while not self._ready:
            chunk = self.response.read1(65536)
            if not chunk:
                raise EOFError
            self.raw += chunk
            self._ready.extend(self.decoder.feed(chunk))
        return self._ready.popleft()

    def opened(self) -> dict[str, Any]:
        """Read the first event, ``ssehub.open``. Return its data: the ids of the client and the session."""
        first = self.event()
        assert first.event == "ssehub.open", first
        assert first.data is not None
        who = json.loads(first.data)
        assert isinstance(who, dict)
        return who

    def message(self) -> Message:
        """Return the next message or gap. Skip the hub's other events."""
        while True:
            event = self.event()
            if event.event == "ssehub.gap" or not event.event.startswith("ssehub."):
                return event

    def data(self, count: int) -> list[str]:
        """Return the data of the next ``count`` messages."""
        return [self.message().data or "" for _ in range(count)]

    def rest(self) -> list[Message]:
        """Read to the end of the stream. Return the events."""
        events: list[Message] = []
        with contextlib.suppress(EOFError):
            while True:
                events.append(self.event())
        return events

    def close(self) -> None:
        """Close the connection as a browser does."""
        self.response.close()
        self._connection.close()
        self.socket.close()

    def reset(self) -> None:
        """Reset the connection (TCP RST)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def call(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Make one request. Return the status and the body, which is decoded if it is JSON."""
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
    """Wait until a condition is true, because of other threads or processes. Return the condition's value."""
    deadline = time.monotonic() + guard
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain{': ' if what else ''}{what}")
        time.sleep(0.005)
    return result
