"""Warnings: of a server that is not set up for streams, and of messages that nobody can get. Each is logged once."""

from __future__ import annotations

import atexit
import functools
import io
import os
import sys
import tempfile
from typing import Any

from ssehub.logger import logger

#: By process: whether messages were sent to a log in memory, and no stream or cursor was ever asked for.
_unheard: dict[int, bool] = {}
#: Under these, what is sent is looked at without any stream.
_TESTERS = ("pytest", "django.test.runner")


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


def note_sent() -> None:
    """Note that a message was sent to a log in memory, and warn at the exit if nobody can have got any."""
    _unheard.setdefault(os.getpid(), True)
    _warn_at_exit()


def note_served() -> None:
    """Note that somebody follows, or will, in this process."""
    _unheard[os.getpid()] = False


@functools.cache
def _warn_at_exit() -> None:
    atexit.register(_warn_of_the_unheard)


def _warn_of_the_unheard() -> None:
    if _unheard.get(os.getpid()) and not any(name in sys.modules for name in _TESTERS):
        logger.warning(
            "nobody has got what this process has sent: its log is in its own memory, and no client has ever connected"
            " here. If the clients are at another process, give both one log, Hub(RedisLog(...))"
        )


def is_test(environ: dict[str, Any]) -> bool:
    """Return whether a request was made by the test client of Flask, werkzeug or Django: what it says of its server is
    not true.
    """
    return _has_no_server(environ) and not _is_everything(environ)


def _is_wrapped(environ: dict[str, Any]) -> bool:
    """Return whether a request was made by a wrapper from ASGI to WSGI. a2wsgi names its scope, others do not."""
    return "asgi.scope" in environ or (_has_no_server(environ) and _is_everything(environ))


def _has_no_server(environ: dict[str, Any]) -> bool:
    """Return whether no server has made a request: its body is in memory, and no server is named."""
    body = environ.get("wsgi.input")
    is_held = isinstance(body, io.BytesIO | tempfile.SpooledTemporaryFile)
    return "SERVER_SOFTWARE" not in environ and (is_held or type(body).__module__ == "django.test.client")


def _is_everything(environ: dict[str, Any]) -> bool:
    """Return whether there are both several threads and several processes: asgiref and uvicorn always say so."""
    return environ.get("wsgi.multithread") is True and environ.get("wsgi.multiprocess") is True


@functools.cache
def _warn(text: str) -> None:
    logger.warning(text)
