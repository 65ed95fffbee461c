"""Transport: a ``requests`` stream that returns data promptly and can be cancelled."""

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
from ssehub.client.watched import trim, watched


class Timeout(NamedTuple):
    """The maximum number of seconds for each phase of a connection; None for no limit."""

    #: For the TCP connection to one address, and for each reply within the TLS handshake.
    connect: float | None = 3.05
    #: From the request to the end of the response's headers, in total. Each redirect has its own limit.
    headers: float | None = 30.0
    #: Without any data in the stream; comments count as data. A hub sends a heartbeat every 15 s by default.
    idle: float | None = 45.0


class Transport:
    """Opens streams for one client, one after the other. It belongs to the thread that reads.

    :param session: the user's session. None creates one, which is closed with the transport.
    :param timeout: the limit of each phase.
    """

    def __init__(self, session: requests.Session | None, timeout: Timeout) -> None:
        self._session = session or requests.Session()
        self._is_ours = session is None
        self._watched = watched(self._session)
        self._timeout = timeout

    def open(self, cancellation: Cancellation, method: str, url: str, **options: Any) -> Stream:
        """Send a request and return the response as soon as its headers have arrived, whatever its status.

        :param cancellation: aborts the request, and the stream until it is closed.
        :param options: arguments of ``requests.Session.request``.
        :raises requests.RequestException: if there is no response. If it is a ``ValueError`` too, it is permanent.
        """
        check_url(url)
        options["headers"] = self._named(options.get("headers"))
        if self._session.verify is not True:
            # In requests, REQUESTS_CA_BUNDLE overrides the value of a session, but not that of a request.
            options.setdefault("verify", self._session.verify)
        timeout = (self._timeout.connect, self._timeout.headers)
        try:
            with connecting(cancellation):
                response = self._watched.request(method, url, stream=True, timeout=timeout, **options)
            return Stream(response, cancellation, self._timeout.idle)
        except BaseException as error:
            if cancellation.answer is not None:
                cancellation.answer.close()
            cancellation.release()
            error = _translated(error, cancellation.answer)
            if isinstance(error, requests.RequestException):
                veil(error, url)
            raise error
        finally:
            if self._is_ours:
                trim(self._session.cookies)

    def _named(self, headers: Mapping[str, str | bytes] | None) -> CaseInsensitiveDict[str | bytes]:
        """Add a User-Agent header, unless the request or the session has one."""
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
        if self._is_ours:
            self._session.close()


class Stream:
    """Reads an open response piece by piece. It belongs to one thread, which alone may close it."""

    def __init__(self, response: requests.Response, cancellation: Cancellation, idle: float | None) -> None:
        self.response = response
        self._cancellation = cancellation
        self._idle = idle
        self._read1: Callable[[], bytes] | None = None
        self._limit = limiter(response)
        if (connected := socket_of(response)) is not None:
            cancellation.watch(connected)

    def prepare(self) -> None:
        """Choose how the body is read. :meth:`read` does it if it was not called before.

        :raises StreamRefused: if the body is compressed, and the package to decode it is not installed.
        """
        if lacking := missing(self.response):
            raise StreamRefused(f"the stream is compressed with {lacking} to read it", response=self.response)
        self._read1 = reader(self.response)

    def read(self) -> bytes:
        """Return data as soon as any has arrived; empty at the end of the response.

        :raises requests.ReadTimeout: if no data arrived in time.
        :raises requests.ConnectionError: if the response broke off.
        """
        if self._read1 is None:
            self.prepare()
        assert self._read1 is not None
        try:
            # requests has a single timeout for headers and body.
            self._limit(self._idle)
            piece = self._read1()
            if not piece and getattr(getattr(self.response.raw, "_fp", None), "length", None):
                raise http.client.IncompleteRead(piece)  # shorter than its Content-Length
            return piece
        except (TimeoutError, urllib3.exceptions.ReadTimeoutError) as error:
            # Without a limit of ours, the system's keep-alive probes were not answered.
            what = "the connection timed out" if self._idle is None else f"no data arrived for {self._idle:g} s"
            raise requests.ReadTimeout(what, response=self.response) from error
        except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
            raise requests.ConnectionError(f"the stream broke off: {error!r}", response=self.response) from error

    def close(self) -> None:
        """Close the response and release its socket."""
        with contextlib.suppress(OSError):
            self.response.close()
        self._cancellation.release()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _translated(error: BaseException, answer: requests.Response | None) -> BaseException:
    """Return an error of ``requests`` in the place of those that it lets through, or that mean something else here.

    :param answer: the last answer, if there was one.
    """
    if isinstance(error, UnicodeEncodeError):
        return requests.exceptions.InvalidHeader(error.reason)
    if isinstance(error, requests.exceptions.InvalidHeader) and isinstance(error.args[0], urllib3.exceptions.HTTPError):
        error = error.args[0]  # it is about the response's headers
    if isinstance(error, ValueError) and answer is not None and answer.is_redirect:
        # Unlike an address of the user's, the server may mend it.
        place = bare(answer.headers["Location"])
        return requests.ConnectionError(f"a redirect leads to an address that cannot work: {place}", response=answer)
    if isinstance(error, urllib3.exceptions.LocationValueError):
        return requests.exceptions.InvalidURL(str(error))
    known = isinstance(error, requests.RequestException)
    if not known and isinstance(error, urllib3.exceptions.HTTPError | http.client.HTTPException | ValueError):
        return requests.ConnectionError(f"the answer cannot be understood: {error}")
    return error


def check_url(url: str) -> None:
    """Check a URL. ``requests`` reports an invalid host as not found, which would lead to endless retries.

    :raises requests.exceptions.InvalidURL: a ``ValueError``; if the host contains a blank, or host or port are invalid.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError if the port is invalid
    except ValueError:
        raise requests.exceptions.InvalidURL(f"not an address: {bare(url)}") from None
    if any(letter.isspace() for letter in parts.netloc):
        raise requests.exceptions.InvalidURL(f"the host has a blank in it: {bare(url)}")


def check_header(name: str | bytes, value: str | bytes) -> None:
    """Check a header. The value is not shown: a token from a file often ends with a line break.

    :raises requests.exceptions.InvalidHeader: a ``ValueError``.
    """
    text = value if isinstance(value, str) else value.decode("latin-1")
    if "\n" in text or "\r" in text or text[:1].isspace():
        raise requests.exceptions.InvalidHeader(f"the header {name!r} contains a line break, or starts with whitespace")


def check_scheme(session: requests.Session, url: str) -> None:
    """Check that a session has an adapter for a URL.

    :raises requests.exceptions.InvalidSchema: a ``ValueError``.
    """
    try:
        session.get_adapter(url)
    except requests.exceptions.InvalidSchema:
        raise requests.exceptions.InvalidSchema(f"the session has no adapter for {bare(url)}") from None
