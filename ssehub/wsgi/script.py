"""Script: the JavaScript with which all tabs of a browser share one stream."""

from __future__ import annotations

import functools
import importlib.resources
from typing import Any

from ssehub.wsgi.response import Request, Response, environ_of


def shared_script(request_or_environ: Request | dict[str, Any]) -> Response:
    """Return the script that defines ``SharedEventSource``.

    Browsers revalidate the script on each load. If it has not changed, the response is a 304 without a body.

    :param request_or_environ: a werkzeug or Flask request, or the WSGI environ.
    :returns: a werkzeug response, which is also a WSGI application.
    """
    response = Response(_content(), content_type="text/javascript; charset=utf-8")
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.add_etag()
    return response.make_conditional(environ_of(request_or_environ))


@functools.cache
def _content() -> bytes:
    return importlib.resources.files("ssehub.wsgi").joinpath("shared.js").read_bytes()
