"""Request: the parts of a client's request, evaluated for each attempt."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import requests
from requests.structures import CaseInsensitiveDict

from ssehub.client.responses import bare
from ssehub.client.transport import check_header, check_url
from ssehub.hooks import check_plain

T = TypeVar("T")
#: A value, or a function that returns one and is called for each attempt.
Provided: TypeAlias = T | Callable[[], T]

Headers = Mapping[str, str | bytes]
Body = bytes | str | Mapping[str, Any]
_LAST_EVENT_ID = "Last-Event-ID"
#: Methods of requests that may be sent twice. "A client SHOULD NOT automatically retry a request with a non-idempotent
#: method." (RFC 9110 9.2.2)
_IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY")


@dataclass(frozen=True)
class Request:
    """The parts of a request, each a value or a function that is called for each attempt. Immutable.

    The parameters are those of :class:`~ssehub.Client`.
    """

    url: Provided[str]
    method: str = "GET"
    headers: Provided[Headers | None] = None
    params: Provided[Any] = None
    body: Provided[Body | None] = None
    json: Provided[Any] = None
    auth: Any = None
    allow_redirects: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.method, str) or not self.method:
            raise ValueError(f"method must be the name of an HTTP method, not {self.method!r}")
        for name in ("url", "headers", "params", "body", "json", "auth"):
            check_plain(name, getattr(self, name))
        if not callable(self.url):
            _check_url(self.url)
        if not callable(self.headers):
            _check_headers(self.headers)
        if not callable(self.body):
            _check_body(self.body)
        _check_auth(self.auth)
        if self.body is not None and self.json is not None:
            raise ValueError("a request has one body, but body and json were both given")

    @property
    def is_idempotent(self) -> bool:
        """Whether a request with this method may be sent twice."""
        return self.method.upper() in _IDEMPOTENT

    def url_now(self) -> str:
        """Return the address for the next attempt.

        :raises ValueError: if it is invalid.
        """
        url: str = _now(self.url)
        if callable(self.url):
            _check_url(url)
        return url

    def options(self, last_event_id: str) -> dict[str, Any]:
        """Return the other arguments of ``requests.Session.request``. Errors of the functions are not caught.

        :raises TypeError: if a function returns a value of the wrong type.
        """
        body = _now(self.body)
        _check_body(body)
        options = {"params": _now(self.params), "data": body, "json": _now(self.json), "auth": self._auth()}
        return {**options, "headers": self._headers(last_event_id), "allow_redirects": self.allow_redirects}

    def _headers(self, last_event_id: str) -> CaseInsensitiveDict[str | bytes]:
        # "Set (`Accept`, `text/event-stream`) in request's header list. Set request's cache mode to "no-store"" (WHATWG
        # HTML 9.2.2); fetch turns the latter into this Cache-Control. Compression would only delay a stream.
        headers: CaseInsensitiveDict[str | bytes] = CaseInsensitiveDict(
            {"Accept": "text/event-stream", "Cache-Control": "no-cache", "Accept-Encoding": "identity"}
        )
        given = _now(self.headers)
        _check_headers(given)
        headers.update(given or {})
        # "Let lastEventIDValue be the EventSource object's last event ID string, encoded as UTF-8." It is passed as
        # bytes, because requests sends a str as latin-1, and refuses a value that starts with whitespace.
        if value := last_event_id.encode().strip(b" \t").lstrip(b"\v\f"):
            headers[_LAST_EVENT_ID] = value
        return headers

    def _auth(self) -> Any:
        """Return the value for ``requests``. A callable is called with the prepared request."""
        if not callable(self.auth) or isinstance(self.auth, requests.auth.AuthBase):
            return self.auth
        try:
            inspect.signature(self.auth).bind()
        except (TypeError, ValueError):
            return self.auth
        return self.auth()


def checked_id(value: object) -> str:
    """Return the value if it can be a last event id.

    :raises TypeError: if it is not a str.
    :raises ValueError: if it contains a character that cannot be in the id of a stream.
    """
    if not isinstance(value, str):
        raise TypeError(f"last_event_id must be a str, not {type(value).__name__}")
    if "\n" in value or "\r" in value or "\0" in value:
        raise ValueError("last_event_id has a line break or a NUL, which no event id contains")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("last_event_id has half of a surrogate pair, which UTF-8 cannot encode")
    return value


def _now(provided: Any) -> Any:
    return provided() if callable(provided) else provided


def _check_url(url: object) -> None:
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, or a function that returns one, not {type(url).__name__}")
    check_url(url)
    if not urlsplit(url).scheme:
        raise requests.exceptions.MissingSchema(f"the url has no scheme; perhaps it is http://{bare(url)}")


def _check_headers(headers: object) -> None:
    if headers is None:
        return
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping, or a function that returns one, not {type(headers).__name__}")
    if any(isinstance(name, str) and name.lower() == _LAST_EVENT_ID.lower() for name in headers):
        raise ValueError("the header Last-Event-ID is set by the client; use the parameter last_event_id")
    for name, value in headers.items():
        if not isinstance(name, str | bytes) or not isinstance(value, str | bytes):
            raise TypeError(f"a header must be str or bytes; {name!r} is {type(value).__name__}")
        _check_latin_1(f"the header {name!r}", name, value)
        check_header(name, value)


def _check_auth(auth: object) -> None:
    """Refuse a name and a password of which ``requests`` cannot make a header."""
    names = (auth.username, auth.password) if isinstance(auth, requests.auth.HTTPBasicAuth) else auth
    if isinstance(names, tuple):
        _check_latin_1("auth", *names)


def _check_latin_1(what: str, *values: object) -> None:
    try:
        "".join(value for value in values if isinstance(value, str)).encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not latin-1; pass it as bytes") from None


def _check_body(body: object) -> None:
    # A file or an iterator would be empty on the second attempt.
    if body is not None and not isinstance(body, bytes | str | Mapping):
        raise TypeError(
            f"body must be bytes, a str or a mapping, or a function that returns one, not {type(body).__name__}: "
            "it is sent again on each attempt"
        )
