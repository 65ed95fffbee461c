"""Target: an address that connections are made to, and the head of the requests that go there."""

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

from ssehub.exceptions import SSEHubError

#: Seconds that each address of a name may take when it is looked for.
_PATIENCE = 5.0


class BenchError(SSEHubError):
    """A measurement cannot begin: its text says why."""


class Target:
    """Hold where to connect, and how requests begin there. Immutable.

    Making one connects once, which blocks for some seconds at the most, to learn which of a name's addresses answers.

    :param url: http or https; a name and a password in it become ``Authorization``.
    :param headers: more headers of each request.
    :raises ValueError: if there is no such address, or a header is none.
    :raises BenchError: if nobody answers there.
    """

    def __init__(self, url: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http address: {_shown(url)!r}; it begins with http:// or https://")
        tls = parts.scheme == "https"
        self.host: str = parts.hostname
        port = parts.port or (443 if tls else 80)
        self.path: str = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        #: As it may be shown: without a password, and without the query, which may hold a token.
        self.shown: str = _shown(url)
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
        """Make the bytes of a request.

        :param lines: more header lines.
        """
        first = f"{method} {self.path} HTTP/1.1\r\n".encode("latin-1")
        return b"".join((first, self._head, *(line + b"\r\n" for line in lines), b"\r\n", body))

    def _find(self, port: int) -> tuple[socket.AddressFamily, Any]:
        """Learn which address answers; of localhost, for instance, often only one of two."""
        try:
            with contextlib.closing(socket.create_connection((self.host, port), _PATIENCE)) as found:
                return found.family, found.getpeername()
        except (OSError, UnicodeError) as error:
            raise BenchError(f"{self.shown}: {error}") from None


def raise_file_limit(needed: int = 0) -> int:
    """Raise the soft limit of open files to the hard one, for this process and those it starts.

    :param needed: descriptors without which there is no use in beginning.
    :returns: the limit.
    :raises BenchError: if it stays below what is needed.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):  # unlimited is more than some systems take
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= limit < needed:
        raise BenchError(f"{needed} open files are needed and {limit} are allowed; see `ulimit -Hn`")
    return limit


def _line(name: str, value: str) -> str:
    if any(break_ in name + value for break_ in "\r\n\0"):
        raise ValueError(f"not a header: {name!r}: {value!r}")
    return f"{name}: {value}"


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else url
