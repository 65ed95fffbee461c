"""Warnings about servers that are not configured for streams, and about messages that no client can get.

Each is logged once.
"""

from __future__ import annotations

import atexit
import functools
import io
import os
import sys
import tempfile
from typing import Any

from ssehub.logger import logger

#: By process: True if messages were sent to a log in memory, and no stream or cursor was ever requested.
_unheard: dict[int, bool] = {}
#: Test runners. Under these, sent messages are often checked without any stream.
_TESTERS = ("pytest", "django.test.runner")


def warn_of(environ: dict[str, Any], is_shared: bool) -> None:
    """Warn, once per process, about a server whose configuration does not suit streams.

    :param environ: the environ of a request for a stream.
    :param is_shared: whether several processes share the hub's log.
    """
    if _is_wrapped(environ):
        _warn(
            "the request came through a wrapper from ASGI to WSGI: each stream uses one of the few threads of the"
            " wrapper, or all of them, and a client that disconnects is noticed late or never. Serve the WSGI"
            " application itself, with gunicorn for instance"
        )
    elif environ.get("wsgi.multiprocess") and not is_shared and not is_test(environ):
        _warn(
            "the server runs several processes, but the hub's log is in the memory of one of them: clients only get"
            " messages that are sent in the process that they are connected to. Use one process, or"
            " Hub('sqlite:hub.db')"
        )


def warn_of_hidden_worker() -> None:
    """Warn, once per process, if the hub cannot find out when gunicorn stops the worker."""
    _warn(
        "the application handles SIGTERM itself, so the hub cannot find gunicorn's worker. When the worker stops, it"
        " waits for the streams on its threads, by default for 30 s, and then cuts them. Start gunicorn with"
        " -c python:ssehub.integrations.gunicorn, or use Hub(detach=True)"
    )


def note_sent() -> None:
    """Note that a message was sent to a log in memory, to warn at exit if no client can have received any."""
    _unheard.setdefault(os.getpid(), True)
    _warn_at_exit()


def note_served() -> None:
    """Note that this process has a client, or has given a cursor to one."""
    _unheard[os.getpid()] = False


@functools.cache
def _warn_at_exit() -> None:
    atexit.register(_warn_of_the_unheard)


def _warn_of_the_unheard() -> None:
    if _unheard.get(os.getpid()) and not any(name in sys.modules for name in _TESTERS):
        logger.warning(
            "no client can have received the messages of this process: its log is in its own memory, and no client has"
            " ever connected here. If the clients connect to another process, share a log: Hub('sqlite:hub.db')"
        )


def is_test(environ: dict[str, Any]) -> bool:
    """Return whether the test client of Flask, werkzeug or Django made a request.

    Such a request describes a server that does not exist.
    """
    return _has_no_server(environ) and not _is_everything(environ)


def _is_wrapped(environ: dict[str, Any]) -> bool:
    """Return whether a wrapper from ASGI to WSGI made a request. a2wsgi adds ``asgi.scope``, other wrappers do not."""
    return "asgi.scope" in environ or (_has_no_server(environ) and _is_everything(environ))


def _has_no_server(environ: dict[str, Any]) -> bool:
    """Return whether a request was made without a server: its body is in memory, and no server is named."""
    body = environ.get("wsgi.input")
    is_held = isinstance(body, io.BytesIO | tempfile.SpooledTemporaryFile)
    return "SERVER_SOFTWARE" not in environ and (is_held or type(body).__module__ == "django.test.client")


def _is_everything(environ: dict[str, Any]) -> bool:
    """Return whether the server has both several threads and several processes: asgiref and uvicorn always say so."""
    return environ.get("wsgi.multithread") is True and environ.get("wsgi.multiprocess") is True


@functools.cache
def _warn(text: str) -> None:
    logger.warning(text)
