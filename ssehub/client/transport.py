"""Transport: a ``requests`` stream that is prompt to read and can be cancelled."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

import ssehub
from ssehub.client.body import limiter, missing, reader, socket_of
from ssehub.client.cancellation import Cancellation, connecting
from ssehub.client.responses import StreamRefused, bare, veil
from ssehub.client.watched import Watched, trim


class Timeout(NamedTuple):
    """Seconds that each phase of a connection may take; None for no limit."""

    #: For the TCP connection to one address, and for each answer within the TLS handshake.
    connect: float | None = 3.05
    #: From the request to the end of the response's headers, in total; each redirect has its own.
    headers: float | None = 30.0
    #: Without any content, comments included, within the stream. A hub's heartbeat comes every 15.
    idle: float | None = 45.0


class Transport:
    """Open streams, one after the other, for one client. It belongs to the thread that reads.

    :param session: the user's. None makes a session that is closed with the transport.
    :param timeout: for each phase.
    """

    def __init__(self, session: requests.Session | None, timeout: Timeout) -> None:
        self._session = session or requests.Session()
        self._is_ours = session is None
        self._watched = Watched(self._session)
        self._timeout = timeout

    def open(self, cancellation: Cancellation, method: str, url: str, **options: Any) -> Stream:
        """Send a request and return the response as soon as its headers are there, whatever its status.

        :param cancellation: cuts it off, and the stream, until the stream is closed.
        :param options: as ``requests.Session.request`` takes them.
        :raises requests.RequestException: if there is no response. One that is a ``ValueError`` too would come again.
        """
        check_url(url)
        options["headers"] = self._named(options.get("headers"))
        if self._session.verify is not True:
            # requests lets REQUESTS_CA_BUNDLE override what a session says, but not what a request says.
            options.setdefault("verify", self._session.verify)
        timeout = (self._timeout.connect, self._timeout.headers)
        try:
            with connecting(cancellation):
                response = self._watched.session.request(method, url, stream=True, timeout=timeout, **options)
            return Stream(response, cancellation, self._timeout.idle)
        except BaseException as error:
            if cancellation.answer is not None:
                cancellation.answer.close()
            cancellation.release()
            if _is_garbled(error):
                error = requests.ConnectionError(f"the answer cannot be understood: {error}")
            if isinstance(error, requests.RequestException):
                veil(error, url)
            raise error
        finally:
            if self._is_ours:
                trim(self._session.cookies)

    def _named(self, headers: Mapping[str, str | bytes] | None) -> CaseInsensitiveDict[str | bytes]:
        """Add a User-Agent, unless there is one of the user's or of the session's."""
        for name, value in self._session.headers.items():
            if isinstance(value, str | bytes):
                check_header(name, value)
        named: CaseInsensitiveDict[str | bytes] = CaseInsensitiveDict(headers or {})
        default = requests.utils.default_user_agent()
        if self._session.headers.get("User-Agent") == default:
            named.setdefault("User-Agent", f"ssehub/{ssehub.__version__} {default}")
        return named

    def close(self) -> None:
        """Close what is ours."""
        self._watched.close()
        if self._is_ours:
            self._session.close()


class Stream:
    """Read an open response piece by piece. It belongs to one thread, which alone may close it."""

    def __init__(self, response: requests.Response, cancellation: Cancellation, idle: float | None) -> None:
        self.response = response
        self._cancellation = cancellation
        self._idle = idle
        self._read1: Callable[[], bytes] | None = None
        self._limit = limiter(response)
        if (connected := socket_of(response)) is not None:
            cancellation.watch(connected)

    def prepare(self) -> None:
        """Choose how the body is read; :meth:`read` does it otherwise.

        :raises StreamRefused: if the body is compressed, and the package that undoes it is not installed.
        """
        if lacking := missing(self.response):
            raise StreamRefused(f"the stream is compressed with {lacking} to read it", response=self.response)
        self._read1 = reader(self.response)

    def read(self) -> bytes:
        """Return what has arrived, as soon as there is anything; nothing at the end of the response.

        :raises requests.ReadTimeout: if nothing came for too long.
        :raises requests.ConnectionError: if the response broke off.
        """
        if self._read1 is None:
            self.prepare()
        assert self._read1 is not None
        try:
            # requests has one time-out for headers and body.
            self._limit(self._idle)
            piece = self._read1()
            if not piece and getattr(getattr(self.response.raw, "_fp", None), "length", None):
                raise http.client.IncompleteRead(piece)  # shorter than its Content-Length
            return piece
        except (TimeoutError, urllib3.exceptions.ReadTimeoutError) as error:
            # Without a limit it is the system's: its probes of the connection were not answered.
            what = "the connection timed out" if self._idle is None else f"nothing came for {self._idle:g} s"
            raise requests.ReadTimeout(what, response=self.response) from error
        except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
            raise requests.ConnectionError(f"the stream broke off: {error!r}", response=self.response) from error

    def close(self) -> None:
        """Close the response and let go of its socket."""
        with contextlib.suppress(OSError):
            self.response.close()
        self._cancellation.release()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _is_garbled(error: BaseException) -> bool:
    """Return whether an answer was no HTTP, though ``requests`` puts it in another way or has not translated it."""
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
    except ValueError:
        raise requests.exceptions.InvalidURL(f"not an address: {bare(url)}") from None
    if any(letter.isspace() for letter in host):
        raise requests.exceptions.InvalidURL(f"the host has a blank in it: {bare(url)}")


def check_header(name: str | bytes, value: str | bytes) -> None:
    """Refuse a header that cannot be sent. The value is not shown: a token from a file often ends with a line break.

    :raises requests.exceptions.InvalidHeader: a ``ValueError``.
    """
    text = value if isinstance(value, str) else value.decode("latin-1")
    if "\n" in text or "\r" in text or text[:1].isspace():
        raise requests.exceptions.InvalidHeader(f"the header {name!r} has a line break in it, or begins with a blank")


def check_scheme(session: requests.Session, url: str) -> None:
    """Refuse an address that a session has no adapter for.

    :raises requests.exceptions.InvalidSchema: a ``ValueError``.
    """
    try:
        session.get_adapter(url)
    except requests.exceptions.InvalidSchema:
        raise requests.exceptions.InvalidSchema(f"nothing here can connect to {bare(url)}") from None
