"""BoundedResponse: an HTTP response with bounds on its head and on the time that a read takes.

``http.client`` alone has three faults here. A socket's time-out starts anew with each byte, so a server that sends one
byte now and then is never given up. The end of the connection counts as the end of the head, so half a head is taken
for a whole one. Of the interim responses only 100 is skipped.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import Any

#: Bytes of a head at the most, interim responses included. Precedent: curl's limit is 300 KiB.
_MOST = 256 << 10
#: Bytes of the buffer: each refill takes a few calls in Python.
_BUFFER = 65_536


class Bounded(io.RawIOBase):
    """Read a socket until a deadline. It belongs to the thread that reads.

    :param connected: the socket, whose time-out is the first limit.
    """

    def __init__(self, connected: Any) -> None:
        self._below: io.RawIOBase = connected.makefile("rb", buffering=0)
        self._sock = connected
        self._until: float | None = None
        self.limit(connected.gettimeout())

    def limit(self, seconds: float | None) -> None:
        """Set how long all reads from now on may take in total, in seconds; None removes the limit."""
        if seconds is not None:
            self._until = time.monotonic() + seconds
        elif self._until is not None:
            self._until = None
            self._sock.settimeout(None)

    def readinto(self, buffer: Any) -> int | None:
        """Read what has arrived; called by ``io``.

        :raises TimeoutError: if nothing arrives before the deadline.
        """
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(left)
        return self._below.readinto(buffer)

    def readable(self) -> bool:
        """Tell ``io`` that this can be read."""
        return True

    def close(self) -> None:
        """Let go of the socket."""
        super().close()
        self._below.close()


class BoundedResponse(http.client.HTTPResponse):
    """Read a response. The socket's time-out is the limit for the whole head."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp: io.BufferedReader = io.BufferedReader(Bounded(sock), _BUFFER)

    def begin(self) -> None:
        """Read the head; called by ``http.client``.

        :raises http.client.HTTPException: if it is too long, or is cut off by the end of the connection.
        """
        source = self.fp
        self.fp = _Head(source)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if isinstance(self.fp, _Head):  # it is None if there is no body
                self.fp = source

    def _read_status(self) -> tuple[str, int, str]:
        # "A client MUST be able to parse one or more 1xx responses received prior to a final response, even if the
        # client does not expect one." (RFC 9110 15.2) After 101 there is no HTTP any more.
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status >= 200 or status == 101:
                return version, status, reason
            http.client.parse_headers(self.fp)


class _Head:
    """Read the lines of a head, which all have an end."""

    def __init__(self, source: io.BufferedReader) -> None:
        self._source = source
        self._left = _MOST

    def readline(self, limit: int) -> bytes:
        line = self._source.readline(limit)
        is_first, self._left = self._left == _MOST, self._left - len(line)
        if self._left < 0:
            raise http.client.HTTPException(f"the head of the answer is longer than {_MOST} bytes")
        if not line.endswith(b"\n") and len(line) < limit and not (is_first and not line):
            raise http.client.IncompleteRead(line)
        return line

    def close(self) -> None:
        self._source.close()
