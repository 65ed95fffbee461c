"""Script: what a page loads so that all tabs of a browser share one stream."""

from __future__ import annotations

import functools
import importlib.resources
from typing import Any

from ssehub.wsgi.response import Request, Response, environ_of


def shared_script(request_or_environ: Request | dict[str, Any]) -> Response:
    """Answer with the script that defines ``SharedEventSource``.

    Browsers ask each time whether it is still the same, and are answered in a line as long as it is.

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
