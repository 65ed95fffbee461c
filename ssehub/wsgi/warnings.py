"""Warnings: what a request shows of a server that is not set up for streams, each logged once."""

from __future__ import annotations

import functools
import io
import logging
import tempfile
from typing import Any

logger = logging.getLogger("ssehub")


def warn_of(environ: dict[str, Any], is_shared: bool) -> None:
    """Warn, once in a process, of a server that cannot serve streams as it is set up.

    :param environ: of a request for a stream.
    :param is_shared: whether the hub's log is one for several processes.
    """
    if _is_wrapped(environ):
        _warn(
            "the request came through a wrapper from ASGI to WSGI: each stream holds one of the few threads of the"
            " wrapper, or all of them, and a client that leaves is noticed late or never. Serve the WSGI application"
            " itself, with gunicorn for instance"
        )
    elif environ.get("wsgi.multiprocess") and not is_shared and not is_test(environ):
        _warn(
            "the server runs several processes, and the hub's log is in the memory of one: clients only get what is"
            " sent in the process that they are connected to. Use one process, or Hub(RedisLog(...))"
        )


def is_test(environ: dict[str, Any]) -> bool:
    """Tell whether a request was made by the test client of Flask, werkzeug or Django: what it says of its server is
    not true.
    """
    return _has_no_server(environ) and not _is_everything(environ)


def _is_wrapped(environ: dict[str, Any]) -> bool:
    """Tell whether a request was made by a wrapper from ASGI to WSGI. a2wsgi names its scope, others do not."""
    return "asgi.scope" in environ or (_has_no_server(environ) and _is_everything(environ))


def _has_no_server(environ: dict[str, Any]) -> bool:
    """Tell whether no server has made a request: its body is in memory, and no server is named."""
    body = environ.get("wsgi.input")
    is_held = isinstance(body, io.BytesIO | tempfile.SpooledTemporaryFile)
    return "SERVER_SOFTWARE" not in environ and (is_held or type(body).__module__ == "django.test.client")


def _is_everything(environ: dict[str, Any]) -> bool:
    """Tell whether there are both several threads and several processes: asgiref and uvicorn always say so."""
    return environ.get("wsgi.multithread") is True and environ.get("wsgi.multiprocess") is True


@functools.cache
def _warn(text: str) -> None:
    logger.warning(text)
