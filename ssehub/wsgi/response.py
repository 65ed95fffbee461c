"""The HTTP rim: event streams as werkzeug responses."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs

from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Request, Response

from ssehub.events import Message
from ssehub.events.message import Received
from ssehub.log.packet import check_fields, warn_of_type
from ssehub.server.connection import as_message

__all__ = ["Request", "Response", "check_headers", "environ_of", "event_stream", "last_event_id", "stream_response"]
__all__ += ["Unfit", "unavailable"]

#: Hop-by-hop headers belong to the server (RFC 9110 section 7.6.1): wsgiref and waitress answer an application that
#: sets one with a 500. A stream has no length. The type is what makes it a stream.
_REFUSED = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "content-type",
    )
)
#: A token, and what may be in a value (RFC 9110 5.1 and 5.5), as far as WSGI's latin-1 goes.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile("[\t\x20-\x7e\x80-\xff]*")
#: No browser takes what somebody has sent for a page (https://fetch.spec.whatwg.org/#x-content-type-options-header).
NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
#: ``no-transform`` (RFC 9111 5.2.2.6) keeps the proxies of webpack-dev-server and Next.js from compressing, which would
#: hold everything back. ``X-Accel-Buffering`` is nginx's: without it nothing arrives through its default configuration.
_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no", **NO_SNIFFING}


class Unfit(BadRequest, ValueError):
    """A value from a request that a stream cannot have. werkzeug and Flask answer with a 400."""

    def __str__(self) -> str:
        return self.description or ""


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Check response headers that an application adds, where they enter.

    :returns: a copy.
    :raises ValueError: if one is the server's or the stream's own business, or no header: gunicorn would answer each
        request with a 500.
    :raises TypeError: if a name or value is not a string.
    """
    checked = dict(headers or {})
    for name, value in checked.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"header names and values must be str, not {name!r}: {value!r}")
        if name.lower() in _REFUSED:
            raise ValueError(f"the header {name} is not the application's to set on an event stream")
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"not a legal header: {name!r}: {value!r}")
    return checked


def stream_response(body: Iterator[bytes], headers: Mapping[str, str]) -> Response:
    """Make the response around a stream. To HEAD it answers without a body, and never starts the iterator."""
    response = Response(body, mimetype="text/event-stream")
    response.headers.update(_HEADERS)
    response.headers.update(headers)
    return response


def unavailable(seconds: int) -> Response:
    """Answer that there is no room: 503, for clients that know what that means.

    :param seconds: when to ask again.
    """
    headers = {"Retry-After": str(max(1, seconds)), "Cache-Control": "no-store", **NO_SNIFFING}
    return Response("the hub is full or closing\n", 503, headers)


def event_stream(iterable: Iterable[Any], *, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with a stream that has one producer and needs no hub: the tokens of a language model, say.

    The headers leave at once, before the first message is there. When the client leaves, the iterable is closed at its
    next message. The thread that serves the request iterates it. When a stream ends, a browser connects anew: send
    something by which the page knows to call ``close()``.

    :param iterable: messages, texts, or other values, which are sent as JSON. A message whose id cannot come back in a
        request header ends the stream with a ``ValueError``; one that a client has received is sent on as it is.
    :param headers: more response headers.
    :raises TypeError: if it is one text or one message, which belongs in a list, or nothing to iterate over.
    :raises ValueError: if a header is not the application's to set.
    """
    if isinstance(iterable, str | bytes) or not isinstance(iterable, Iterable):
        raise TypeError(f"event_stream needs an iterable of messages or texts, such as a list, not {iterable!r}")
    return stream_response(_encoded(iterable), check_headers(headers))


def last_event_id(request_or_environ: Request | dict[str, Any]) -> str:
    """Return where the client wants to go on from: the header, else the query parameter, else an empty string.

    The parameter is ``lastEventId`` or ``last_event_id``; a page puts :meth:`Hub.cursor` there.
    The header wins, because a browser sends it on each reconnection, when the URL has long been overtaken.
    """
    environ = environ_of(request_or_environ)
    header: str = environ.get("HTTP_LAST_EVENT_ID", "")
    if header:
        # WSGI hands bytes over as latin-1 (PEP 3333); "the value of which is the UTF-8 encoding" (WHATWG HTML 9.2.3).
        return header.encode("latin-1", "replace").decode("utf-8", "replace")
    query: dict[str, list[str]] = parse_qs(environ.get("QUERY_STRING", ""))
    values = query.get("lastEventId") or query.get("last_event_id") or [""]
    return values[0]


def environ_of(request_or_environ: Request | dict[str, Any]) -> dict[str, Any]:
    """Return the WSGI environment of a werkzeug or Flask request, or the environment itself.

    :raises TypeError: if it is something else.
    """
    environ = getattr(request_or_environ, "environ", request_or_environ)
    if not isinstance(environ, dict):
        kind = type(request_or_environ).__name__
        raise TypeError(f"a request of a WSGI server, or its environ, is needed, not {kind}")
    return environ


def _encoded(iterable: Iterable[Any]) -> Iterator[bytes]:
    iterator = iter(iterable)
    try:
        for item in itertools.chain((Message(comment=""),), iterator):
            message = as_message(item)
            if not isinstance(message, Received):
                check_fields(message)
                warn_of_type(message)
            yield message.encode()
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
