"""Server info: how this process serves, as far as it knows. ``ssehub doctor`` and the console show it."""

from __future__ import annotations

import os
from typing import Any

from ssehub.wsgi import sockets
from ssehub.wsgi.hub import Hub

#: What an integration has learnt of the server that runs this process; see :func:`note`.
_noted: dict[str, Any] = {}


def note(**facts: Any) -> None:
    """Remember what the server has told of itself; an integration calls this, in the process that serves.

    :param facts: values of JSON. ``worker``, ``threads``, ``processes``, ``preload`` and ``hook`` are those that
        ``ssehub doctor`` knows.
    """
    _noted.update(facts)


def server_info(environ: dict[str, Any], hub: Hub) -> dict[str, Any]:
    """Tell how a request is served, and how the hub's streams are: the server, its threads, the hub's settings.

    :param environ: of any request to the server.
    :returns: values of JSON.
    """
    settings = hub.settings
    return {
        "software": environ.get("SERVER_SOFTWARE", ""),
        "multithread": bool(environ.get("wsgi.multithread")),
        "multiprocess": bool(environ.get("wsgi.multiprocess")),
        "shows_socket": sockets.find_socket(environ) is not None,
        "pid": os.getpid(),
        "shared_log": hub.is_shared,
        "heartbeat": settings.heartbeat,
        "retry": settings.retry,
        "max_connections": settings.max_connections,
        "detach": settings.detach,
        **_noted,
    }
