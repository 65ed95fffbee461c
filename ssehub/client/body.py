"""Body: reads the body of a response as it arrives, or only its beginning."""

from __future__ import annotations

import contextlib
import functools
import http.client
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests
import urllib3

from ssehub.client.bounded_response import Bounded

#: Maximum number of bytes that one read returns.
_PIECE = 65536
#: The encodings that urllib3 can decode with the packages that are installed.
_DECODED = tuple(urllib3.HTTPResponse.CONTENT_DECODERS)
#: The packages that urllib3 needs for some encodings.
_PACKAGES = {"br": "brotli", "zstd": "zstandard"}


def reader(response: requests.Response) -> Callable[[], bytes]:
    """Return a function that returns data as soon as it arrives. The iterators of ``requests`` wait for full blocks."""
    raw: Any = response.raw
    below: Any = getattr(raw, "_fp", None)
    compressions = encodings(response)
    if not compressions and hasattr(below, "read1"):
        # http.client decodes the chunks and never waits for a second one; urllib3's own reads take twice the time.
        return functools.partial(below.read1, _PIECE)
    if isinstance(raw, urllib3.BaseHTTPResponse):
        raw.headers["Content-Encoding"] = ", ".join(compressions)  # urllib3 decodes an unknown name as deflate
        return functools.partial(raw.read1, _PIECE, decode_content=True)
    return functools.partial(next, _bytewise(response), b"")


def encodings(response: requests.Response) -> list[str]:
    """Return the compressions in a Content-Encoding. Some servers send "none" or a charset there; these are ignored."""
    names = [one.strip().lower() for one in response.headers.get("Content-Encoding", "").split(",")]
    return [one for one in names if one in _DECODED or one in _PACKAGES]


def missing(response: requests.Response) -> str:
    """Return the compression that cannot be decoded, with the package to install; empty if all can be decoded."""
    return next((f"{one}; install {_PACKAGES[one]}" for one in encodings(response) if one not in _DECODED), "")


def _bytewise(response: requests.Response) -> Iterator[bytes]:
    """Read a response byte by byte, the only way that returns data promptly with every custom adapter."""
    yield from response.iter_content(1)


def beginning(response: requests.Response, size: int, seconds: float) -> bytes:
    """Return the first bytes of a body as they were sent, and close it so that ``requests`` reads no more.

    :param size: maximum number of bytes.
    :param seconds: maximum time to wait for them.
    :returns: an empty value if the body is compressed, because a few bytes may expand to gigabytes.
    """
    if response._content_consumed:  # type: ignore[attr-defined]
        return response.content[:size]  # a response hook has already read the body
    below: Any = getattr(response.raw, "_fp", None)
    read = b""
    if not encodings(response) and hasattr(below, "read1"):
        until, limit = time.monotonic() + seconds, limiter(response)
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            while len(read) < size and (left := until - time.monotonic()) > 0:
                limit(left)
                if not (piece := below.read1(size - len(read))):
                    break
                read += piece
        if getattr(below, "length", None) == 0:
            below.close()  # the connection can be reused
    keep(response, read)
    return read


def keep(response: requests.Response, content: bytes) -> None:
    """Make this the content of a response, and end it; ``requests`` would read all of it, and undo its compression."""
    response._content = content
    response._content_consumed = True  # type: ignore[attr-defined]
    if not getattr(response.raw, "closed", True):
        response.raw.close()


def limiter(response: requests.Response) -> Callable[[float | None], None]:
    """Return a function that sets the maximum number of seconds for the following reads of a response."""
    source = getattr(getattr(getattr(response.raw, "_fp", None), "fp", None), "raw", None)
    if isinstance(source, Bounded):
        return source.limit
    connected = socket_of(response)
    return connected.settimeout if connected is not None else lambda seconds: None


def socket_of(response: requests.Response) -> Any:
    """Return the socket that a response is read from. Return None if the adapter does not use one."""
    place: Any = response.raw
    for name in ("_fp", "fp", "raw", "_sock"):
        place = getattr(place, name, None)
    return place if hasattr(place, "settimeout") and hasattr(place, "fileno") else None
