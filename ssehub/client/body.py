"""Body: how the body of a response is read, as soon as there is any of it, or no more than the beginning."""

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
from ssehub.client.watched import keep

#: The most one read returns, in bytes.
_PIECE = 65536
#: The encodings that urllib3 undoes, with the packages that are installed.
_DECODED = tuple(urllib3.HTTPResponse.CONTENT_DECODERS)
#: The packages for those that it undoes only with one.
_PACKAGES = {"br": "brotli", "zstd": "zstandard"}


def reader(response: requests.Response) -> Callable[[], bytes]:
    """Choose what returns a piece as soon as it is there: ``requests``' own iterators wait for more of it."""
    raw: Any = response.raw
    below: Any = getattr(raw, "_fp", None)
    compressions = encodings(response)
    if not compressions and hasattr(below, "read1"):
        # http.client undoes the chunks and never waits for more than one; urllib3 on top of it takes twice the time.
        return functools.partial(below.read1, _PIECE)
    if isinstance(raw, urllib3.BaseHTTPResponse):
        raw.headers["Content-Encoding"] = ", ".join(compressions)  # urllib3 takes an unknown name for deflate
        return functools.partial(raw.read1, _PIECE, decode_content=True)
    return functools.partial(next, _bytewise(response), b"")


def encodings(response: requests.Response) -> list[str]:
    """Return the compressions that a Content-Encoding names. Servers put "none" there, or a charset: that is none."""
    names = [one.strip().lower() for one in response.headers.get("Content-Encoding", "").split(",")]
    return [one for one in names if one in _DECODED or one in _PACKAGES]


def missing(response: requests.Response) -> str:
    """Return the compression that cannot be undone, with the package that is missing for it; empty if there is none."""
    return next((f"{one}; install {_PACKAGES[one]}" for one in encodings(response) if one not in _DECODED), "")


def _bytewise(response: requests.Response) -> Iterator[bytes]:
    """Read a response of some other adapter's in the one way that is prompt with all of them."""
    yield from response.iter_content(1)


def beginning(response: requests.Response, size: int, seconds: float) -> bytes:
    """Return the first bytes of a body as they were sent, and let ``requests`` read no more of it.

    :param size: bytes at the most.
    :param seconds: how long to wait for them at the most.
    :returns: nothing if the body is compressed: a few bytes may swell to gigabytes.
    """
    if response._content_consumed:  # type: ignore[attr-defined]
        return response.content[:size]  # a hook has read it
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
            below.close()  # the connection can be used again
    keep(response, read)
    return read


def limiter(response: requests.Response) -> Callable[[float | None], None]:
    """Return what sets the seconds that reading a response may take from now on."""
    source = getattr(getattr(getattr(response.raw, "_fp", None), "fp", None), "raw", None)
    if isinstance(source, Bounded):
        return source.limit
    connected = socket_of(response)
    return connected.settimeout if connected is not None else lambda seconds: None


def socket_of(response: requests.Response) -> Any:
    """Return the socket a response is read from, or None if its adapter has none."""
    place: Any = response.raw
    for name in ("_fp", "fp", "raw", "_sock"):
        place = getattr(place, name, None)
    return place if hasattr(place, "settimeout") and hasattr(place, "fileno") else None
