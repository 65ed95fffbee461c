"""Stream: a connection whose socket the hub has taken over, as far as its bytes are concerned."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

from ssehub.server.connection import Connection
from ssehub.server.reader import Reader
from ssehub.wsgi.takeover import Head

#: A send never waits, and a client that has left is an error, not a signal.
FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
#: Reads of what a client has sent ahead, before its connection is closed.
_DRAINS = 16

_LAST_CHUNK = b"0\r\n\r\n"


class Stream:
    """One stream that the writer writes. Only the writer's thread uses it.

    :param sock: the client's socket, which does not block.
    :param head: the response's head and first chunk, which are sent first.
    :param run: runs a hook of this stream: called with what it is and the function. It does not block.
    :param beat: seconds of silence before a heartbeat.
    :param expires: when it has to end (``time.monotonic()``).
    :param on_end: called when it has ended, after its hooks were given to ``run``.

    :ivar busy: it is to be served by itself, or cannot be served now: it gets nothing that a group is sent.
    :ivar hooking: a hook runs that has to end before anything is sent.
    :ivar finishing: nothing comes after the rest.
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
        #: What the socket has not taken of the last write, and when it took something last (``time.monotonic()``).
        self.rest: memoryview | None = memoryview(head.data)
        self.rest_since: float = time.monotonic()
        self.written: float = self.rest_since
        self.busy: bool = True
        self.hooking: bool = False
        self.finishing: bool = False
        #: The oldest message in the rest was sent at this time (seconds since 1970; 0: unknown).
        self._owed = 0.0

    def write(self, data: bytes, sent: float, is_last: bool = False) -> float | None:
        """Write what the socket takes, and keep the rest.

        :param sent: when the oldest message in it was sent (seconds since 1970); 0 if it is not known.
        :param is_last: whether the body ends with it.
        :returns: that time, if all was taken; otherwise :meth:`flush` returns it.
        :raises OSError: if the client has left.
        """
        if self.chunked:
            data = frame(data) + (_LAST_CHUNK if is_last else b"")
        self.finishing = is_last
        return self._send(memoryview(data), sent)

    def flush(self) -> float | None:
        """Write more of the rest.

        :returns: what :meth:`write` would have returned, if all is taken now.
        :raises OSError: if the client has left.
        """
        return self._send(self.rest, self._owed) if self.rest is not None else None

    def keep_rest(self, data: bytes, taken: int, sent: float) -> None:
        """Note that the socket took only a part of a write."""
        self.rest = memoryview(data)[taken:]
        self.rest_since, self._owed = time.monotonic(), sent

    def close(self) -> None:
        """Close the connection: the client sees its end at once, also where a child process holds a copy of it."""
        with contextlib.suppress(OSError):
            # What a client has sent ahead would make the kernel reset the connection, and the last bytes would be lost.
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
