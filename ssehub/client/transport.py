"""Transport: a ``requests`` stream that is prompt to read and can be cancelled."""

from __future__ import annotations

import contextlib
import functools
import http.client
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from ssehub.client.canceller import Canceller, WatchedAdapter, connecting

#: The most one read returns, in bytes.
_PIECE = 65536
#: The encodings that urllib3 undoes, with the packages that are installed.
_DECODED = tuple(urllib3.HTTPResponse.CONTENT_DECODERS)


class Timeout(NamedTuple):
    """Seconds that each phase of a connection may take; None for no limit."""

    #: For the TCP connection to one address, and for each answer within the TLS handshake.
    connect: float | None = 3.05
    #: From the request to the response's headers.
    headers: float | None = 30.0
    #: Of silence within the stream, comments included. A hub's heartbeat comes every 15.
    idle: float | None = 45.0


class Transport:
    """Open streams, one after the other, for one client. It belongs to the thread that reads.

    :param session: the user's; its plain adapters are replaced, within this transport alone, by ones that can be
        cancelled. None makes a session that is closed with the transport.
    :param timeout: for each phase.
    """

    def __init__(self, session: requests.Session | None, timeout: Timeout) -> None:
        self._session = session or requests.Session()
        self._is_ours = session is None
        self._timeout = timeout
        self._adapters: dict[HTTPAdapter, WatchedAdapter] = {}

    def open(self, canceller: Canceller, method: str, url: str, **options: Any) -> Stream:
        """Send a request and return the response as soon as its headers are there, whatever its status.

        :param canceller: cuts it off, and the stream, until the stream is closed.
        :param options: as ``requests.Session.request`` takes them.
        :raises requests.RequestException: if there is no response. One that is a ``ValueError`` too would come again.
        """
        check_url(url)
        timeout = (self._timeout.connect, self._timeout.headers)
        try:
            with connecting(canceller):
                response = self._watched().request(method, url, stream=True, timeout=timeout, **options)
            try:
                return Stream(response, canceller, self._timeout.idle)
            except BaseException:
                response.close()
                raise
        except BaseException as error:
            canceller.release()
            if _is_garbled(error):
                raise requests.ConnectionError(f"the answer cannot be understood: {error}") from error
            raise

    def close(self) -> None:
        """Close what is ours."""
        for adapter in self._adapters.values():
            adapter.close()
        if self._is_ours:
            self._session.close()

    def _watched(self) -> requests.Session:
        """Return the session, as it is now, with adapters whose connections are watched."""
        watched: requests.Session = object.__new__(type(self._session))
        watched.__dict__.update(self._session.__dict__)
        watched.adapters = OrderedDict(
            (prefix, self._replaced(adapter)) for prefix, adapter in self._session.adapters.items()
        )
        return watched

    def _replaced(self, adapter: Any) -> Any:
        if type(adapter) is not HTTPAdapter:
            return adapter
        ours = self._adapters.get(adapter)
        if ours is None:
            ours = self._adapters[adapter] = WatchedAdapter(max_retries=adapter.max_retries)
        return ours


class Stream:
    """Read an open response piece by piece. It belongs to one thread, which alone may close it."""

    def __init__(self, response: requests.Response, canceller: Canceller, idle: float | None) -> None:
        self.response = response
        self._canceller = canceller
        self._idle = idle
        self._read1 = _reader(response)
        if (connected := _socket_of(response)) is not None:
            canceller.watch(connected)
            # requests has one time-out for headers and body; the body's begins with the next read.
            connected.settimeout(idle)

    def read(self) -> bytes:
        """Return what has arrived, as soon as there is anything; nothing at the end of the response.

        :raises requests.ReadTimeout: if nothing came for too long.
        :raises requests.ConnectionError: if the response broke off.
        """
        try:
            piece = self._read1()
            if not piece and getattr(getattr(self.response.raw, "_fp", None), "length", None):
                raise http.client.IncompleteRead(piece)  # shorter than its Content-Length
            return piece
        except (TimeoutError, urllib3.exceptions.ReadTimeoutError) as error:
            raise requests.ReadTimeout(f"nothing came for {self._idle:g} s", response=self.response) from error
        except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
            raise requests.ConnectionError(f"the stream broke off: {error!r}", response=self.response) from error

    def close(self) -> None:
        """Close the response and let go of its socket."""
        with contextlib.suppress(OSError):
            self.response.close()
        self._canceller.release()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _is_garbled(error: BaseException) -> bool:
    """Tell whether an answer was no HTTP, though ``requests`` puts it in another way or has not translated it."""
    if isinstance(error, requests.exceptions.InvalidHeader) and error.args:
        return isinstance(error.args[0], urllib3.exceptions.HTTPError)  # the response's, and not one of ours
    if isinstance(error, requests.RequestException):
        return False
    # A place to go to next that is none is a plain ValueError, or a UnicodeError.
    return isinstance(error, urllib3.exceptions.HTTPError | http.client.HTTPException | ValueError)


def check_url(url: str) -> None:
    """Refuse what ``requests`` would take for a host that cannot be found, and try for ever.

    :raises requests.exceptions.InvalidURL: a ``ValueError``; if the host has a blank in it, or is no host.
    """
    try:
        host = urlsplit(url).netloc
    except ValueError as error:
        raise requests.exceptions.InvalidURL(f"{error}: {url!r}") from error
    if any(letter.isspace() for letter in host):
        raise requests.exceptions.InvalidURL(f"the host has a blank in it: {url!r}")


def _reader(response: requests.Response) -> Callable[[], bytes]:
    """Choose what returns a piece as soon as it is there: ``requests``' own iterators wait for more of it."""
    raw: Any = response.raw
    below: Any = getattr(raw, "_fp", None)
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity") and hasattr(below, "read1"):
        # http.client undoes the chunks and never waits for more than one; urllib3 on top of it takes twice the time.
        return functools.partial(below.read1, _PIECE)
    if unknown := [one for one in encoding.split(",") if one.strip() not in ("", "identity", *_DECODED)]:
        raise requests.exceptions.ContentDecodingError(f"nobody here can undo the encoding {unknown[0].strip()!r}")
    if isinstance(raw, urllib3.BaseHTTPResponse):
        return functools.partial(raw.read1, _PIECE, decode_content=True)
    return functools.partial(next, _bytewise(response), b"")


def _bytewise(response: requests.Response) -> Iterator[bytes]:
    """Read a response of some other adapter's in the one way that is prompt with all of them."""
    yield from response.iter_content(1)


def _socket_of(response: requests.Response) -> Any:
    """Return the socket a response is read from, or None if its adapter has none."""
    place: Any = response.raw
    for name in ("_fp", "fp", "raw", "_sock"):
        place = getattr(place, name, None)
    return place if hasattr(place, "settimeout") and hasattr(place, "fileno") else None
