"""Inquiry: requests the statistics of a service while the streams are open."""

from __future__ import annotations

import json
from typing import Any

from ssehub.tools.bench.body import Body
from ssehub.tools.bench.connection import Connection
from ssehub.tools.bench.loop import Loop
from ssehub.tools.bench.target import Target

#: Maximum size of a response in bytes. One with ten thousand sessions has one and a half million.
_LONGEST = 1 << 24


class Inquiry:
    """A GET request for JSON. Everything happens in the loop's thread.

    :ivar over: whether the response is complete, or will not come.
    """

    def __init__(self, loop: Loop, target: Target) -> None:
        self.over: bool = False
        self._target = target
        self._answer = Body()
        self._text = bytearray()
        self._connection: Connection | None = None
        try:
            self._connection = Connection(loop, target, self)
        except OSError:
            self.over = True

    @property
    def value(self) -> Any:
        """The JSON of a 200; None otherwise."""
        if not self.over or self._answer.status != 200 or self._answer.type != "application/json":
            return None
        try:
            return json.loads(self._text)
        except (ValueError, RecursionError):
            return None

    def ready(self) -> None:
        """Send the request."""
        if self._connection is not None:
            self._connection.write(self._target.request("GET", b"Accept: application/json", b"Connection: close"))

    def received(self, data: bytes) -> None:
        """Process a part of the response."""
        try:
            self._text += self._answer.feed(data)
        except ValueError:
            self.close()
            return
        # A response that is not JSON may be a stream without an end.
        is_json = self._answer.type == "application/json"
        if self._answer.ended or (self._answer.status and not is_json) or len(self._text) > _LONGEST:
            self.close()

    def lost(self, error: OSError | None) -> None:
        """Note that the connection has ended."""
        self.close()

    def close(self) -> None:
        """End the connection. Idempotent."""
        self.over = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None
