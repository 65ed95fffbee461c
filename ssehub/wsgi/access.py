"""Access: which requests may subscribe or publish, and which other origins may read the streams."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from werkzeug.exceptions import Forbidden

from ssehub.log import ALL, All

#: Seconds for which a browser may cache the response to a preflight request: Chromium's upper limit.
_MAX_AGE = "7200"
#: The action of a request: follow zones, send to a zone (or to all, with :data:`~ssehub.ALL`), or list connections.
Action = Literal["subscribe", "publish", "inspect"]
#: Decides whether a request is allowed. It is called before anything else happens, with the request, the action, the
#: zones, and the client id that the request is about. If it returns False, the response is a 403. If it raises an HTTP
#: error, such as a 401, that is the response. For "subscribe" it may return a ``timedelta``: the stream ends after that
#: time, and when the client reconnects, the function is called again.
Authorize = Callable[[Any, Action, Sequence[str] | All, str | None], bool | timedelta]


def check(
    authorize: Authorize, request: Any, action: Action, zones: Sequence[str] | All = ALL, client_id: str | None = None
) -> float | None:
    """Ask the application whether a request is allowed.

    :returns: the seconds for which it is allowed, or None for no limit.
    :raises Forbidden: if it is not allowed.
    :raises TypeError: if the application returned anything other than True, False or, for "subscribe", a ``timedelta``.
        So a function that forgets its ``return`` allows nothing.
    """
    answer = authorize(request, action, zones, client_id)
    if isinstance(answer, timedelta) and action == "subscribe":
        if (seconds := answer.total_seconds()) > 0:
            return seconds
        raise Forbidden(f"this request may not {action} here any more")
    if not isinstance(answer, bool):
        raise TypeError(f"authorize must return True or False, not {answer!r}")
    if not answer:
        raise Forbidden(f"this request may not {action} here")
    return None


def check_origins(origins: Collection[str]) -> frozenset[str]:
    """Check the origins whose pages may read a stream.

    :raises ValueError: if one is not an origin: a scheme, a host and an optional port.
    :raises TypeError: if it is a single string.
    """
    if isinstance(origins, str):
        raise TypeError("origins must be a list of origins, not a single str")
    for origin in origins:
        parts = urlsplit(origin)
        if "@" in parts.netloc:
            raise ValueError("an origin has no user and no password; it is like https://app.example")
        if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}" or not parts.netloc:
            raise ValueError(f"not an origin, which is like https://app.example: {origin!r}")
    return frozenset(origins)


def cors_headers(origin: str | None, origins: frozenset[str]) -> dict[str, str]:
    """Return the headers that let a browser give the response to a page of another origin, with cookies.
    Specification: https://fetch.spec.whatwg.org/#http-responses. A browser's ``EventSource`` sends no preflight
    request. For requests that do, see :func:`preflight_headers`.

    :param origin: the ``Origin`` of the request.
    """
    if not origins:
        return {}
    if origin not in origins or origin is None:
        return {"Vary": "Origin"}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", "Vary": "Origin"}


def preflight_headers(
    method: str, origin: str | None, origins: frozenset[str], methods: Sequence[str] = ("GET", "HEAD")
) -> dict[str, str] | None:
    """Return the headers of the response, a 204, to a preflight request.

    A page that uses ``fetch`` sends such a request when it reconnects, because ``Last-Event-ID`` is not a safelisted
    header (https://fetch.spec.whatwg.org/#cors-safelisted-request-header).

    :param method: the method of the request.
    :param origin: the ``Origin`` of the request.
    :param methods: the methods that a page may use.
    :returns: None if this is not a preflight request, or its origin is not allowed.
    """
    if method != "OPTIONS" or origin not in origins:
        return None
    return {
        **cors_headers(origin, origins),
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": "last-event-id, authorization, cache-control, content-type",
        "Access-Control-Max-Age": _MAX_AGE,
    }
