"""Views that return event streams."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.core.exceptions import BadRequest, ImproperlyConfigured
from django.db import connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_safe
from werkzeug.exceptions import HTTPException

from ssehub.integrations.django.signer import seconds_allowed
from ssehub.integrations.django.site import hub, read_settings
from ssehub.integrations.signed_zones import PUBLIC, SIGNATURE
from ssehub.logger import logger
from ssehub.wsgi.access import check, cors_headers, preflight_headers
from ssehub.wsgi.response import NO_SNIFFING, Unfit
from ssehub.wsgi.script import shared_script


def _answers_preflight(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Decorate a view so that it accepts GET and HEAD, and preflight requests of allowed origins."""
    safe = require_safe(view)

    @functools.wraps(view)
    def _answer(request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponseBase:
        origin, origins = request.headers.get("Origin"), read_settings().origins
        headers = preflight_headers(request.method or "", origin, origins)
        if headers is not None:
            return HttpResponse(status=204, headers=headers)
        answer = safe(request, *arguments, **named)
        if answer.status_code >= 400:  # an allowed page can read why it was refused
            for name, value in {**cors_headers(origin, origins), **NO_SNIFFING}.items():
                answer.headers[name] = value
            answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    return _answer


@_answers_preflight
def events(request: HttpRequest) -> HttpResponseBase:
    """Return a stream of the zones in the query: ``?zone=a&zone=b``.

    The setting ``AUTHORIZE`` decides who may follow. Without it, only the zone ``default`` can be followed, and the
    zones that the tag ``sse_source`` has signed.
    """
    found, zones = read_settings(), request.GET.getlist("zone") or ["default"]
    client_id, max_age, signature = found.client_id(request), None, request.GET.get(SIGNATURE)
    try:
        if found.authorize is not None:
            max_age = check(found.authorize, request, "subscribe", zones, client_id)
        elif signature is not None:
            max_age = seconds_allowed(zones, client_id, signature)
        elif zones != [*PUBLIC]:
            return JsonResponse({"error": "only the zone default is public: there is no AUTHORIZE"}, status=403)
    except HTTPException as error:
        return JsonResponse({"error": error.description}, status=error.code or 500)
    return _connect_or_refuse(request, {"zone": zones, "client_id": client_id, "max_age": max_age})


@require_safe
def script(request: HttpRequest) -> HttpResponse:
    """Return the script with which the tabs of a browser share one stream."""
    answer = shared_script(request.environ)
    content = answer.get_data() if request.method == "GET" and answer.status_code == 200 else b""
    return HttpResponse(content, status=answer.status_code, headers=dict(answer.headers))


def stream(view: Callable[..., Any]) -> Callable[..., HttpResponseBase]:
    """Decorate a view so that it returns a stream.

    The view returns the arguments of :func:`connect`: a zone, a list of zones, or a dictionary. Check in the view
    whether the user may follow; after it raises ``PermissionDenied``, nothing is registered. Any other response is sent
    unchanged.
    """

    @functools.wraps(view)
    def _answer(request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponseBase:
        wanted = view(request, *arguments, **named)
        if isinstance(wanted, str | list):
            wanted = {"zone": wanted}
        if not isinstance(wanted, Mapping):
            return wanted
        return _connect_or_refuse(request, {"client_id": read_settings().client_id(request), **wanted})

    return _answers_preflight(_answer)


def connect(request: HttpRequest, **options: Any) -> HttpResponseBase:
    """Return a stream of the site's hub as the response to a request.

    The request's database connections are released when the stream begins, and after each hook that has used one.

    :param options: the options of :meth:`ssehub.Hub.connect`.
    :raises BadRequest: Django's, which leads to a 400, if a name or ``since`` is invalid.
    :raises ImproperlyConfigured: if the request is not a WSGI request.
    """
    if not hasattr(request, "environ"):
        raise ImproperlyConfigured(
            f"a stream needs a WSGI server, but the request is an {type(request).__name__}: serve the site's wsgi.py"
            " (gunicorn mysite.wsgi) instead of its asgi.py, and remove 'daphne' from INSTALLED_APPS if runserver"
            " should serve streams"
        )
    try:
        answer = hub().connect(request.environ, **options)
    except Unfit as error:
        raise BadRequest(str(error)) from None
    headers = {**dict(answer.headers), **cors_headers(request.headers.get("Origin"), read_settings().origins)}
    # Compressing middlewares, such as Django's own, would hold the stream back. They leave this encoding unchanged.
    headers["Content-Encoding"] = "identity"
    if request.method == "HEAD" or answer.status_code != 200:
        content = b"" if request.method == "HEAD" else answer.get_data()
        return HttpResponse(content, status=answer.status_code, headers=headers)
    return StreamingHttpResponse(_Released(answer.response), headers=headers)


def _connect_or_refuse(request: HttpRequest, options: Mapping[str, Any]) -> HttpResponseBase:
    try:
        return connect(request, **options)
    except BadRequest as error:
        return JsonResponse({"error": str(error)}, status=400)


class _Released(Iterator[bytes]):
    """Iterates a stream, and holds no database connection between the chunks."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self._warned = False

    def __next__(self) -> bytes:
        try:
            return next(self._body)
        finally:
            # After each chunk, because the view's transaction (ATOMIC_REQUESTS) has ended by the first one, and hooks
            # may have used the database.
            self._release()

    def close(self) -> None:
        """End the stream. Django always calls this."""
        try:
            self._body.close()
        finally:
            self._release()

    def _release(self) -> None:
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block:
                connection.close()
            elif not self._warned and not _is_testcases(connection):
                self._warned = True
                logger.warning("a stream continues within a database transaction, and holds its connection")


def _is_testcases(connection: Any) -> bool:
    """Return whether a connection only has the transactions that ``TestCase`` opens around each test."""
    return all(block._from_testcase for block in connection.atomic_blocks)
