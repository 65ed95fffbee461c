"""Takeover: takes a stream's socket over from the WSGI server, or gives it back without visible effect.

WSGI has no way to say "the response has begun, the application continues alone". Rack and Go's net/http call this
hijacking. It is possible without help from the server if the server exposes the client's socket:

1. Before the first chunk, the server's descriptor is replaced by one end of a socket pair. Its number stays the same.
2. The server writes the head and the first chunk, with the changes of all middlewares, into the pair.
3. The hub reads and checks this data at the other end. If it is a plain event stream, and its body is byte for byte
   what the hub has yielded, the hub sends head and first chunk to the client, and then writes the stream itself.
4. Otherwise, for example if a middleware compresses the body, the stream is given back: the server's descriptor is
   restored, the data is passed on to the client, and the server continues as usual.
"""

from __future__ import annotations

import _socket  # under gevent, socket.socket would wait in the event loop, but these sockets never wait
import contextlib
import os
import re
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

_STATUS = re.compile(rb"HTTP/1\.[01] 200(?: |$)")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
#: Maximum number of bytes to read from the server. A head and a preamble have a few hundred.
_READ = 1 << 20
#: Seconds for which giving back waits if the client accepts no data.
_PATIENCE = 30.0


class Head(NamedTuple):
    """The response's head and first chunk, as the hub sends them to the client."""

    data: bytes
    #: Whether the body is framed in chunks (RFC 9112 section 7.1); otherwise it ends with the connection.
    is_chunked: bool


class NotTaken(Exception):
    """The stream stays with the server. The text is the reason."""


class Takeover:
    """A client's socket during the takeover. One thread uses it.

    :param number: the server's descriptor of the client's socket.
    :raises OSError: if no descriptors are left. Nothing has changed then.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._inheritable = os.get_inheritable(number)
        self._held = b""
        with contextlib.ExitStack() as stack:
            self._client = stack.enter_context(contextlib.closing(_socket.socket(fileno=os.dup(number))))
            near = self._make_pair()
            stack.pop_all()
        self._put(near)

    def judge(self, preamble: bytes) -> Head:
        """Read what the server has written since the takeover began, and check it.

        :param preamble: the body's first chunk.
        :raises NotTaken: if the stream has to be given back.
        """
        self._receive()
        return judge(self._held, preamble)

    def give_back(self) -> None:
        """Restore the server's socket, and pass on the data that the server has written since."""
        self._receive()
        os.dup2(self._client.fileno(), self._number, self._inheritable)
        self._far.close()
        rest, deadline = self._held, time.monotonic() + _PATIENCE
        with contextlib.suppress(OSError), contextlib.closing(self._client):
            while rest and time.monotonic() < deadline:
                try:
                    rest = rest[self._client.send(rest, socket.MSG_NOSIGNAL) :]
                except BlockingIOError:  # the socket of a server with an event loop
                    time.sleep(0.005)

    def keep(self) -> Any:
        """Return the client's socket, non-blocking. From now on the client gets nothing that the server writes.

        :meth:`release` has to be called when the server is done with the response.
        """
        self._client.setblocking(False)
        return self._client

    def park(self) -> None:
        """Close one descriptor while the server's thread stays with the stream. :meth:`unpark` has to follow."""
        self._far.close()

    def unpark(self) -> None:
        """Prepare for the server to write the end of the response, which is discarded."""
        with contextlib.suppress(OSError):  # no descriptors left: the server sees that the client has disconnected
            self._put(self._make_pair())

    def release(self) -> None:
        """Make the server see that its client has disconnected. Idempotent."""
        with contextlib.suppress(OSError):
            # Unread data would make it a connection reset, which servers may log.
            while self._far.recv(_READ):
                pass
        self._far.close()

    def _make_pair(self) -> Any:
        """Create a pair, keep a non-blocking end, and return the other, which blocks if the server's socket does."""
        near, self._far = _socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._far.setblocking(False)
        os.set_blocking(near.fileno(), os.get_blocking(self._number))
        return near

    def _put(self, near: Any) -> None:
        with contextlib.closing(near):
            os.dup2(near.fileno(), self._number, self._inheritable)

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(self._held) < _READ and (data := self._far.recv(_READ)):
                self._held += data


def why_not(environ: Mapping[str, Any], socket_number: int | None, is_tls: bool) -> str | None:
    """Return why a request's stream cannot be taken over; None if nothing is known to prevent it."""
    if socket_number is None:
        return "the server does not show the client's socket"
    if environ.get("HTTP_VERSION") == "2" or str(environ.get("SERVER_PROTOCOL", "")).startswith("HTTP/2"):
        return "HTTP/2: all streams of a connection share one socket"
    if is_tls:
        return "TLS is in the server's process"
    return None


def judge(written: bytes, preamble: bytes) -> Head:
    """Check whether the server's output is an event stream that the hub can continue alone.

    :param written: the response so far.
    :param preamble: the first chunk that the hub has yielded.
    :returns: the data to send to the client. ``Connection: close`` is added, because the hub closes the connection at
        the end of the stream (RFC 9112 section 9.6). Everything else is unchanged.
    :raises NotTaken: if it is not.
    """
    if not written:
        raise NotTaken("the server has not written the first chunk before it asks for the second")
    head, end, body = written.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    if not end or not _STATUS.match(lines[0]):
        raise NotTaken("the response is not plain HTTP/1 with status 200")
    fields = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines[1:])]
    chunked = _check_fields(fields)
    if (_unchunk(body) if chunked else body) != preamble:
        raise NotTaken("a middleware changes the body, or the server uses another framing")
    kept = [
        line for line, (name, _) in zip(lines[1:], fields, strict=True) if name not in (b"connection", b"keep-alive")
    ]
    return Head(b"\r\n".join([lines[0], *kept, b"Connection: close", b"", body]), chunked)


def _check_fields(fields: list[tuple[bytes, bytes]]) -> bool:
    """Check that the headers allow no change of the body but chunked framing. Return whether it is chunked."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        values.setdefault(name, []).append(value.lower())
    types = values.get(b"content-type", [])
    if len(types) != 1 or types[0].partition(b";")[0].strip() != b"text/event-stream":
        raise NotTaken("the content type is not that of an event stream")
    if values.get(b"content-encoding", [b"identity"]) != [b"identity"]:
        raise NotTaken("a middleware compresses the stream")
    if b"content-length" in values:
        raise NotTaken("the response has a length")
    codings = values.get(b"transfer-encoding", [])
    if codings not in ([], [b"chunked"]):
        raise NotTaken("the response has an unknown transfer encoding")
    return bool(codings)


def _unchunk(body: bytes) -> bytes | None:
    """Decode complete chunks. Return None if there is any other data."""
    data = b""
    while body:
        line, _, rest = body.partition(b"\r\n")
        match = _SIZE.fullmatch(line)
        size = int(match[1], 16) if match else 0
        if not size or rest[size : size + 2] != b"\r\n":
            return None
        data, body = data + rest[:size], rest[size + 2 :]
    return data
