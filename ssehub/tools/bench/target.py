"""Target: an address to connect to, and the head of the requests to it."""

from __future__ import annotations

import base64
import contextlib
import os
import resource
import socket
import ssl
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

from ssehub.client.responses import bare
from ssehub.client.transport import check_url
from ssehub.exceptions import SSEHubError

#: Maximum number of seconds for each address of a name when the working one is determined.
_PATIENCE = 5.0


class BenchError(SSEHubError):
    """A measurement cannot start. The text is the reason."""


class Target:
    """An address to connect to, with request headers. Immutable.

    The constructor connects once, which may block for seconds, to find out which of a name's addresses works.

    :param url: http or https; user name and password in it become ``Authorization``.
    :param headers: more headers of each request.
    :raises ValueError: if the URL or a header is invalid.
    :raises BenchError: if no server accepts the connection.
    """

    def __init__(self, url: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        check_url(url)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http address: {bare(url)}; it begins with http:// or https://")
        tls = parts.scheme == "https"
        self.host: str = parts.hostname
        port = parts.port or (443 if tls else 80)
        self.path: str = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        #: As it may be shown: without a password, and without the query, which may hold a token.
        self.shown: str = bare(url)
        self.tls: ssl.SSLContext | None = None
        if tls:
            self.tls = ssl.create_default_context(cafile=os.environ.get("REQUESTS_CA_BUNDLE"))
        lines = [f"Host: {parts.netloc.rpartition('@')[2]}"]
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            lines.append(f"Authorization: Basic {base64.b64encode(secret).decode()}")
        lines += [_line(name, value) for name, value in headers]
        self._head = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
        self.family: socket.AddressFamily
        self.address: Any
        self.family, self.address = self._find(port)

    def request(self, method: str, *lines: bytes, body: bytes = b"") -> bytes:
        """Return the bytes of a request.

        :param lines: more header lines.
        """
        first = f"{method} {self.path} HTTP/1.1\r\n".encode("latin-1")
        return b"".join((first, self._head, *(line + b"\r\n" for line in lines), b"\r\n", body))

    def _find(self, port: int) -> tuple[socket.AddressFamily, Any]:
        """Return the address that accepts connections. For localhost, for example, it is often only one of two."""
        try:
            with contextlib.closing(socket.create_connection((self.host, port), _PATIENCE)) as found:
                return found.family, found.getpeername()
        except (OSError, UnicodeError) as error:
            raise BenchError(f"{self.shown}: {error}") from None


def raise_file_limit(needed: int = 0) -> int:
    """Raise the soft limit of open files to the hard limit, for this process and its children.

    :param needed: number of descriptors without which the measurement cannot start.
    :returns: the limit.
    :raises BenchError: if the limit is lower than that.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):  # some systems do not accept "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= limit < needed:
        raise BenchError(f"{needed} open files are needed and {limit} are allowed; see `ulimit -Hn`")
    return limit


def _line(name: str, value: str) -> str:
    if any(break_ in name + value for break_ in "\r\n\0"):
        raise ValueError(f"not a header, for it has a line break or a NUL in it: {name!r}")
    return f"{name}: {value}"
