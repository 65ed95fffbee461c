"""Takeover: takes a stream's socket over from the WSGI server, or gives it back so that nobody notices.

WSGI has no way to say "the response has begun, I go on alone". Rack and Go's net/http call that hijacking. It needs no
help from the server if the server shows the client's socket:

1. Before the first chunk the server's descriptor is swapped for one end of a socket pair. The number stays the same.
2. The server writes the head and the first chunk, as it and all middlewares have made them, into the pair.
3. The other end is read, and judged. If it is a plain event stream, whose body is byte for byte what the hub has
   yielded, head and first chunk are sent to the client, and from then on the hub writes by itself.
4. Anything else, compressed by a middleware for instance, is given back: the server's descriptor is restored, what was
   written is passed on, and the stream goes on as if nothing had happened.
"""

from __future__ import annotations

import _socket  # under gevent, socket.socket would wait in the event loop; here nothing ever waits
import contextlib
import os
import re
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

_STATUS = re.compile(rb"HTTP/1\.[01] 200(?: |$)")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
#: Bytes read of what the server has written; a head and a preamble are a few hundred.
_READ = 1 << 20
#: Seconds that giving back waits for a client that takes nothing.
_PATIENCE = 30.0


class Head(NamedTuple):
    """The response's head and first chunk, as the hub sends them on."""

    data: bytes
    #: Whether the body is framed in chunks (RFC 9112 section 7.1); otherwise it ends with the connection.
    is_chunked: bool


class NotTaken(Exception):
    """The stream stays with the server; the text says why."""


class Takeover:
    """A client's socket on its way from the server to the hub. One thread uses it.

    :param number: the descriptor of the client's socket, as the server has it.
    :raises OSError: if there are no more descriptors; nothing has changed then.
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
        """Read what the server has written since, and decide.

        :param preamble: the body's first chunk.
        :raises NotTaken: if it has to be given back.
        """
        self._receive()
        return judge(self._held, preamble)

    def give_back(self) -> None:
        """Restore the server's socket, and pass on what was written meanwhile."""
        self._receive()
        os.dup2(self._client.fileno(), self._number, self._inheritable)
        self._far.close()
        rest, deadline = self._held, time.monotonic() + _PATIENCE
        with contextlib.suppress(OSError), contextlib.closing(self._client):
            while rest and time.monotonic() < deadline:
                try:
                    rest = rest[self._client.send(rest, socket.MSG_NOSIGNAL) :]
                except BlockingIOError:  # a server with a loop has it so
                    time.sleep(0.005)

    def keep(self) -> Any:
        """Keep the client's socket, and return it, non-blocking. The server writes to nobody from now on.

        :meth:`release` has to be called when the server is done with the response.
        """
        self._client.setblocking(False)
        return self._client

    def park(self) -> None:
        """Release one descriptor while the server's thread stays with the stream; :meth:`unpark` has to follow."""
        self._far.close()

    def unpark(self) -> None:
        """Let the server write the end of the response to nobody again."""
        with contextlib.suppress(OSError):  # no descriptors: the server finds that the client has left
            self._put(self._make_pair())

    def release(self) -> None:
        """Let the server find that its client has left; idempotent."""
        with contextlib.suppress(OSError):
            # What is not read would make it a reset, which servers may log.
            while self._far.recv(_READ):
                pass
        self._far.close()

    def _make_pair(self) -> Any:
        """Make a pair, keep one end, which does not block, and return the other, which blocks if the server's does."""
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
    """Say why a request's stream cannot be taken over, as far as that is known in advance; None if it may be."""
    if socket_number is None:
        return "the server does not show the client's socket"
    if environ.get("HTTP_VERSION") == "2" or str(environ.get("SERVER_PROTOCOL", "")).startswith("HTTP/2"):
        return "HTTP/2: all streams of a connection share one socket"
    if is_tls:
        return "TLS is in the server's process"
    return None


def judge(written: bytes, preamble: bytes) -> Head:
    """Decide whether what a server has written is an event stream that the hub can go on with alone.

    :param written: the response so far.
    :param preamble: the first chunk that the hub has yielded.
    :returns: what to send to the client. It says ``Connection: close``, because the hub ends the connection with the
        stream (RFC 9112 section 9.6); else it is as it was written.
    :raises NotTaken: if it is anything else.
    """
    if not written:
        raise NotTaken("the server has not written the first chunk when it asks for the second")
    head, end, body = written.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    if not end or not _STATUS.match(lines[0]):
        raise NotTaken("the response is not plain HTTP/1 with status 200")
    fields = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines[1:])]
    chunked = _check_fields(fields)
    if (_unchunk(body) if chunked else body) != preamble:
        raise NotTaken("a middleware changes the body, or the server frames it in its own way")
    kept = [
        line for line, (name, _) in zip(lines[1:], fields, strict=True) if name not in (b"connection", b"keep-alive")
    ]
    return Head(b"\r\n".join([lines[0], *kept, b"Connection: close", b"", body]), chunked)


def _check_fields(fields: list[tuple[bytes, bytes]]) -> bool:
    """See that nothing but framing was done to the body; return whether it is chunked."""
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
    """Decode whole chunks; None if there is anything else."""
    data = b""
    while body:
        line, _, rest = body.partition(b"\r\n")
        match = _SIZE.fullmatch(line)
        size = int(match[1], 16) if match else 0
        if not size or rest[size : size + 2] != b"\r\n":
            return None
        data, body = data + rest[:size], rest[size + 2 :]
    return data
