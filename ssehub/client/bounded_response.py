"""BoundedResponse: an HTTP response with limits on the size of its head and on the duration of a read.

``http.client`` has three faults:

* The timeout of a socket restarts with each byte, so a server that sends one byte from time to time never times out.
* The end of the connection counts as the end of the head, so an incomplete head is accepted.
* Of the interim responses (1xx), only 100 is skipped.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import Any

#: Maximum size of a head in bytes, including interim responses. Precedent: curl's limit is 300 KiB.
_MOST = 256 << 10
#: Size of the read buffer in bytes. A large buffer saves calls, since each refill takes a few calls in Python.
_BUFFER = 65_536


class Bounded(io.RawIOBase):
    """A raw stream that reads a socket until a deadline. It belongs to the thread that reads.

    :param connected: the socket. Its timeout is the initial limit.
    """

    def __init__(self, connected: Any) -> None:
        self._below: io.RawIOBase = connected.makefile("rb", buffering=0)
        self._sock = connected
        self._until: float | None = None
        self.limit(connected.gettimeout())

    def limit(self, seconds: float | None) -> None:
        """Set the total time in seconds for all following reads. None removes the limit."""
        if seconds is not None:
            self._until = time.monotonic() + seconds
        elif self._until is not None:
            self._until = None
            self._sock.settimeout(None)

    def readinto(self, buffer: Any) -> int | None:
        """Read data that has arrived. Called by ``io``.

        :raises TimeoutError: if no data arrives before the deadline.
        """
        if self._until is not None:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(left)
        return self._below.readinto(buffer)

    def readable(self) -> bool:
        """Return True. Called by ``io``."""
        return True

    def close(self) -> None:
        """Release the socket."""
        super().close()
        self._below.close()


class BoundedResponse(http.client.HTTPResponse):
    """An HTTP response. The timeout of the socket is the limit for the whole head."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp: io.BufferedReader = io.BufferedReader(Bounded(sock), _BUFFER)

    def begin(self) -> None:
        """Read the head. Called by ``http.client``.

        :raises http.client.HTTPException: if the head is too long or incomplete.
        """
        source = self.fp
        self.fp = _Head(source)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if isinstance(self.fp, _Head):  # None if the response has no body
                self.fp = source

    def _read_status(self) -> tuple[str, int, str]:
        # "A client MUST be able to parse one or more 1xx responses received prior to a final response, even if the
        # client does not expect one." (RFC 9110 15.2) After a 101 the connection is no longer HTTP.
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status >= 200 or status == 101:
                return version, status, reason
            http.client.parse_headers(self.fp)


class _Head:
    """Reads the lines of a head, and rejects a line without an end."""

    def __init__(self, source: io.BufferedReader) -> None:
        self._source = source
        self._left = _MOST

    def readline(self, limit: int) -> bytes:
        line = self._source.readline(limit)
        is_first, self._left = self._left == _MOST, self._left - len(line)
        if self._left < 0:
            raise http.client.HTTPException(f"the head of the response is longer than {_MOST} bytes")
        if not line.endswith(b"\n") and len(line) < limit and not (is_first and not line):
            raise http.client.IncompleteRead(line)
        return line

    def close(self) -> None:
        self._source.close()
