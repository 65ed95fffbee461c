"""Response: event streams as werkzeug responses, and values that requests contain."""

from __future__ import annotations

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
from ssehub.server.reader import HEARTBEAT
from ssehub.server.settings import check_number
from ssehub.wsgi.iteration import iterate

__all__ = ["Request", "Response", "check_headers", "environ_of", "event_stream", "last_event_id", "stream_response"]
__all__ += ["Unfit", "no_more_events", "unavailable"]

#: Headers that an application may not set. Hop-by-hop headers belong to the server (RFC 9110 section 7.6.1): wsgiref
#: and waitress answer with a 500 if an application sets one. A stream has no length, and its content type is fixed.
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
#: A header name is a token; a value has only these characters (RFC 9110 5.1 and 5.5, limited to WSGI's latin-1).
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile("[\t\x20-\x7e\x80-\xff]*")
#: Keeps browsers from showing a message as a web page (https://fetch.spec.whatwg.org/#x-content-type-options-header).
NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
#: ``no-transform`` (RFC 9111 5.2.2.6) stops the proxies of webpack-dev-server and Next.js from compressing, which would
#: delay all messages. ``X-Accel-Buffering`` stops nginx from buffering, as it does in its default configuration.
_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no", **NO_SNIFFING}


class Unfit(BadRequest, ValueError):
    """A value from a request that is not valid for a stream. werkzeug and Flask answer it with a 400."""

    def __str__(self) -> str:
        return self.description or ""


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Check the response headers that an application adds.

    :returns: a copy.
    :raises ValueError: if a header belongs to the server or the stream, or is malformed: gunicorn would answer each
        request with a 500.
    :raises TypeError: if a name or value is not a string.
    """
    checked = dict(headers or {})
    for name, value in checked.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"header names and values must be str, not {name!r}: {value!r}")
        if name.lower() in _REFUSED:
            raise ValueError(f"an application may not set the header {name} on an event stream")
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"not a valid header: {name!r}: {value!r}")
    return checked


def stream_response(body: Iterator[bytes], headers: Mapping[str, str]) -> Response:
    """Return the response that contains a stream. For HEAD it has no body, and the iterator is never started."""
    response = Response(body, mimetype="text/event-stream")
    response.headers.update(_HEADERS)
    response.headers.update(headers)
    return response


def unavailable(seconds: int) -> Response:
    """Return a 503 response: the hub is full or closing.

    :param seconds: when the client should retry.
    """
    headers = {"Retry-After": str(max(1, seconds)), "Cache-Control": "no-store", **NO_SNIFFING}
    return Response("the hub is full or closing\n", 503, headers)


def no_more_events() -> Response:
    """Return a 204 response: the client has all events, and must not reconnect."""
    return Response(status=204, headers={"Cache-Control": "no-store"})


def event_stream(
    iterable: Iterable[Any], *, headers: Mapping[str, str] | None = None, heartbeat: float | None = 15.0
) -> Response:
    """Return an event stream with a single producer, which needs no hub. An example is the output of a language model.

    The headers are sent at once, before the first message. After the client has disconnected, the iterable is closed
    at its next message. When a stream ends, browsers reconnect: end it with a message that makes your page call
    ``close()``. If the output has to outlive the client, use :meth:`Hub.produce`.

    While a generator is silent, the client is sent heartbeats, because proxies close silent connections (nginx: after
    60 s). For this, the generator runs in a thread of its own. A collection, such as a list, needs no such thread, and
    a generator that has begun is not moved to one: both run in the thread that serves the request, without heartbeats.

    :param iterable: messages, texts, or other values, which are sent as JSON. A message whose id is not valid in a
        request header ends the stream with a ``ValueError``. A message received from another stream is sent unchanged.
    :param headers: more response headers.
    :param heartbeat: seconds of silence after which the client is sent a comment. None: no heartbeats, and no thread.
    :raises TypeError: if it is a single text or message (put it into a list), or is not iterable.
    :raises ValueError: if an application may not set one of the headers, or the heartbeat is not positive.
    """
    check_number("heartbeat", heartbeat, optional=True)
    if isinstance(iterable, str | bytes) or not isinstance(iterable, Iterable):
        raise TypeError(f"event_stream needs an iterable of messages or texts, such as a list, not {iterable!r}")
    return stream_response(_chunks(iterable, heartbeat), check_headers(headers))


def last_event_id(request_or_environ: Request | dict[str, Any]) -> str:
    """Return the id after which the client wants to continue, or an empty string.

    The id is in the header ``Last-Event-ID``, or else in the query parameter ``lastEventId`` or ``last_event_id``,
    where a page puts the value of :meth:`Hub.cursor`. The header has priority: a browser updates it on each
    reconnection, while the URL stays the same.
    """
    environ = environ_of(request_or_environ)
    header: str = environ.get("HTTP_LAST_EVENT_ID", "")
    if header:
        # WSGI decodes headers as latin-1 (PEP 3333); "the value of which is the UTF-8 encoding" (WHATWG HTML 9.2.3).
        return header.encode("latin-1", "replace").decode("utf-8", "replace")
    query: dict[str, list[str]] = parse_qs(environ.get("QUERY_STRING", ""))
    values = query.get("lastEventId") or query.get("last_event_id") or [""]
    return values[0]


def environ_of(request_or_environ: Request | dict[str, Any]) -> dict[str, Any]:
    """Return the WSGI environment of a werkzeug or Flask request, or the environment itself.

    :raises TypeError: if the argument is something else.
    """
    environ = getattr(request_or_environ, "environ", request_or_environ)
    if not isinstance(environ, dict):
        kind = type(request_or_environ).__name__
        raise TypeError(f"expected a request of a WSGI server, or its environ, not {kind}")
    return environ


def _chunks(iterable: Iterable[Any], heartbeat: float | None) -> Iterator[bytes]:
    yield Message(comment="").encode()
    items = iterate(iterable, heartbeat)
    try:
        while True:
            item = items.next()
            if item is None:
                yield HEARTBEAT
            elif isinstance(item.error, StopIteration):
                return
            elif item.error is not None:
                raise item.error
            else:
                yield _encoded(item.value)
    finally:
        items.close()


def _encoded(value: Any) -> bytes:
    message = as_message(value)
    if not isinstance(message, Received):
        check_fields(message)
        warn_of_type(message)
    return message.encode()
