"""Access: who may follow and who may send, and which other sites' pages may."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from werkzeug.exceptions import Forbidden

from ssehub.log import ALL, All

#: Seconds for which a browser remembers the answer to a preflight request. Chromium's own limit.
_MAX_AGE = "7200"
#: What is asked for: to follow zones, to send to a zone (or to all, with :data:`~ssehub.ALL`), or to see who is there.
Action = Literal["subscribe", "publish", "inspect"]
#: Says whether a request may do what it asks for: called with the request, the action, the zones, and whose client id
#: is meant, before anything else happens. False is a 403; an HTTP error that it raises, a 401 say, is the answer. To
#: "subscribe", a ``timedelta`` says for how long it may: the stream ends then, and when its client comes back, this is
#: called again.
Authorize = Callable[[Any, Action, Sequence[str] | All, str | None], bool | timedelta]


def check(
    authorize: Authorize, request: Any, action: Action, zones: Sequence[str] | All = ALL, client_id: str | None = None
) -> float | None:
    """Ask the application whether a request may do something.

    :returns: for how many seconds it may, or None for no limit.
    :raises Forbidden: if it may not.
    :raises TypeError: if the application has answered with something else than True, False or, to "subscribe", a
        ``timedelta``: a view that forgets its ``return`` lets nobody in.
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
    """Check the origins whose pages may use a stream, where they enter.

    :raises ValueError: if one is no origin: scheme, host, perhaps a port, nothing else.
    :raises TypeError: if it is a single string.
    """
    if isinstance(origins, str):
        raise TypeError("origins must be several, not a single str")
    for origin in origins:
        parts = urlsplit(origin)
        if "@" in parts.netloc:
            raise ValueError("an origin has no user and no password; it is like https://app.example")
        if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}" or not parts.netloc:
            raise ValueError(f"not an origin, which is like https://app.example: {origin!r}")
    return frozenset(origins)


def cors_headers(origin: str | None, origins: frozenset[str]) -> dict[str, str]:
    """Return the headers by which a browser lets a page of another origin read the answer, cookies and all.

    Specification: https://fetch.spec.whatwg.org/#http-responses. A browser's ``EventSource`` sends no preflight
    request; for others see :func:`preflight_headers`.

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
    """Return the headers of the answer, a 204, to a preflight request for a stream.

    A page that follows with ``fetch`` sends one as soon as it comes back, because ``Last-Event-ID`` is not among the
    headers that it may send without (https://fetch.spec.whatwg.org/#cors-safelisted-request-header).

    :param method: the request's.
    :param origin: the ``Origin`` of the request.
    :param methods: the methods that a page may use.
    :returns: None if this is no preflight request, or one of an origin that may not follow.
    """
    if method != "OPTIONS" or origin not in origins:
        return None
    return {
        **cors_headers(origin, origins),
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": "last-event-id, authorization, cache-control, content-type",
        "Access-Control-Max-Age": _MAX_AGE,
    }
