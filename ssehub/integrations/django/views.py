"""Views that answer with event streams."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.core.exceptions import BadRequest, ImproperlyConfigured
from django.db import connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_safe
from werkzeug.exceptions import HTTPException

from ssehub.integrations.django.site import hub, read_settings
from ssehub.logger import logger
from ssehub.wsgi.access import check, cors_headers, preflight_headers
from ssehub.wsgi.response import NO_SNIFFING, Unfit
from ssehub.wsgi.script import shared_script


def _answers_preflight(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Have a view answer GET and HEAD, and preflight requests of the origins that may follow."""
    safe = require_safe(view)

    @functools.wraps(view)
    def _answer(request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponseBase:
        origin, origins = request.headers.get("Origin"), read_settings().origins
        headers = preflight_headers(request.method or "", origin, origins)
        if headers is not None:
            return HttpResponse(status=204, headers=headers)
        answer = safe(request, *arguments, **named)
        if answer.status_code >= 400:  # a page that may follow sees that it is refused, and why
            for name, value in {**cors_headers(origin, origins), **NO_SNIFFING}.items():
                answer.headers[name] = value
            answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    return _answer


@_answers_preflight
def events(request: HttpRequest) -> HttpResponseBase:
    """Answer with a stream of the zones in the query: ``?zone=a&zone=b``.

    The setting ``AUTHORIZE`` says who may; without it only the zone ``default`` can be followed.
    """
    found, zones = read_settings(), request.GET.getlist("zone") or ["default"]
    client_id, max_age = found.client_id(request), None
    if found.authorize is None and zones != ["default"]:
        return JsonResponse({"error": "only the zone default is open here: there is no AUTHORIZE"}, status=403)
    if found.authorize is not None:
        try:
            max_age = check(found.authorize, request, "subscribe", zones, client_id)
        except HTTPException as error:
            return JsonResponse({"error": error.description}, status=error.code or 500)
    return _connect_or_refuse(request, {"zone": zones, "client_id": client_id, "max_age": max_age})


@require_safe
def script(request: HttpRequest) -> HttpResponse:
    """Answer with the script by which the tabs of a browser share one stream."""
    answer = shared_script(request.environ)
    content = answer.get_data() if request.method == "GET" and answer.status_code == 200 else b""
    return HttpResponse(content, status=answer.status_code, headers=dict(answer.headers))


def stream(view: Callable[..., Any]) -> Callable[..., HttpResponseBase]:
    """Make a view answer with a stream.

    The view returns the arguments of :func:`connect`: a zone, a list of them, or a dictionary. It is the place to ask
    whether the user may: when it raises ``PermissionDenied``, nothing is registered. Any other answer is sent as it is.
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
    """Answer a request with a stream of the site's hub.

    The database connections of the request are free as soon as the stream begins, and after each hook that used one.

    :param options: those of :meth:`ssehub.Hub.connect`.
    :raises BadRequest: Django's, which is a 400, if a name or ``since`` is unfit.
    :raises ImproperlyConfigured: if the request is not one of WSGI.
    """
    if not hasattr(request, "environ"):
        raise ImproperlyConfigured(
            f"a stream needs a WSGI server, and this is an {type(request).__name__}: serve the site's wsgi.py"
            " (gunicorn mysite.wsgi), not its asgi.py, and take 'daphne' out of INSTALLED_APPS if runserver is to"
            " serve streams"
        )
    try:
        answer = hub().connect(request.environ, **options)
    except Unfit as error:
        raise BadRequest(str(error)) from None
    headers = {**dict(answer.headers), **cors_headers(request.headers.get("Origin"), read_settings().origins)}
    # Nothing would ever leave a middleware that compresses: Django's, or one derived from it. They leave this as it is.
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
    """Iterate a stream, and hold no database connection meanwhile."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self._warned = False

    def __next__(self) -> bytes:
        try:
            return next(self._body)
        finally:
            # After each chunk: the view's transaction, which ATOMIC_REQUESTS makes, is over by the first, and hooks may
            # have asked the database.
            self._release()

    def close(self) -> None:
        """End the stream; Django calls this in every case."""
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
                logger.warning("a stream goes on within a database transaction, and holds its connection")


def _is_testcases(connection: Any) -> bool:
    """Return whether a connection's transactions are only those that ``TestCase`` wraps around each test."""
    return all(block._from_testcase for block in connection.atomic_blocks)
