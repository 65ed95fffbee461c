"""Stream: a connection whose socket the hub has taken over, and the bytes that are written to this socket."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

from ssehub.server.connection import Connection
from ssehub.server.reader import Reader
from ssehub.wsgi.takeover import Head

#: A send never blocks, and a disconnected client raises an error instead of a signal.
FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
#: Maximum number of reads, before a connection is closed, to discard data that the client has sent.
_DRAINS = 16

_LAST_CHUNK = b"0\r\n\r\n"


class Stream:
    """One stream that the writer writes. Only the writer's thread uses it.

    :param sock: the client's socket, non-blocking.
    :param head: the response's head and first chunk, which are sent first.
    :param run: called with the name of a hook and the hook, and runs it. It does not block.
    :param beat: seconds of silence before a heartbeat.
    :param expires: when the stream has to end (``time.monotonic()``).
    :param on_end: called after the stream has ended and its hooks were given to ``run``.

    :ivar busy: the stream has to be served by itself, or cannot be served now. A chunk of its group is not sent to it.
    :ivar hooking: a hook is running that has to end before anything is sent.
    :ivar finishing: the stream ends after the rest is sent.
    """

    __slots__ = (
        "_owed", "beat", "busy", "chunked", "connection", "expires", "finishing", "hooking", "number", "on_end",
        "reader", "rest", "rest_since", "run", "sock", "written",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        sock: Any,
        head: Head,
        run: Callable[[str, Callable[[], None]], None],
        beat: float,
        expires: float,
        on_end: Callable[[], None],
    ) -> None:
        self.connection: Connection = connection
        self.reader: Reader = connection.reader
        self.sock: Any = sock
        self.number: int = sock.fileno()
        self.chunked: bool = head.is_chunked
        self.run: Callable[[str, Callable[[], None]], None] = run
        self.beat: float = beat
        self.expires: float = expires
        self.on_end: Callable[[], None] = on_end
        #: The unsent part of the last write, and the time when the socket last accepted data (``time.monotonic()``).
        self.rest: memoryview | None = memoryview(head.data)
        self.rest_since: float = time.monotonic()
        self.written: float = self.rest_since
        self.busy: bool = True
        self.hooking: bool = False
        self.finishing: bool = False
        #: When the oldest message in the rest was sent (seconds since 1970; 0: unknown).
        self._owed = 0.0

    def write(self, data: bytes, sent: float, is_last: bool = False) -> float | None:
        """Write as much as the socket accepts, and keep the rest.

        :param sent: when the oldest message in the data was sent (seconds since 1970); 0 if it is not known.
        :param is_last: whether the body ends with this data.
        :returns: ``sent``, if everything was written. Otherwise :meth:`flush` returns it later.
        :raises OSError: if the client has disconnected.
        """
        if self.chunked:
            data = frame(data) + (_LAST_CHUNK if is_last else b"")
        self.finishing = is_last
        return self._send(memoryview(data), sent)

    def flush(self) -> float | None:
        """Write more of the rest.

        :returns: what :meth:`write` would have returned, if everything is written now.
        :raises OSError: if the client has disconnected.
        """
        return self._send(self.rest, self._owed) if self.rest is not None else None

    def keep_rest(self, data: bytes, taken: int, sent: float) -> None:
        """Note that the socket accepted only a part of a write."""
        self.rest = memoryview(data)[taken:]
        self.rest_since, self._owed = time.monotonic(), sent

    def close(self) -> None:
        """Close the connection. The client sees its end at once, even if a child process has a copy of the socket."""
        with contextlib.suppress(OSError):
            # Unread data from the client would make the kernel reset the connection, and the last bytes would be lost.
            self.sock.shutdown(socket.SHUT_WR)
            for _ in range(_DRAINS):
                if not self.sock.recv(1 << 16, socket.MSG_DONTWAIT):
                    break
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def _send(self, data: memoryview, sent: float) -> float | None:
        try:
            taken = self.sock.send(data, FLAGS)
        except BlockingIOError:
            taken = 0
        now = time.monotonic()
        if taken or self.rest is None:
            self.rest_since = now
        if taken < len(data):
            self.rest, self._owed = data[taken:], sent
            return None
        self.rest, self.written = None, now
        return sent


def frame(data: bytes) -> bytes:
    """Frame data as one chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
