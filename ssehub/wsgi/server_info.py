"""Server info: how this process serves requests. ``ssehub doctor`` and the console show it."""

from __future__ import annotations

import os
from typing import Any

from ssehub.wsgi import gunicorn_worker, sockets
from ssehub.wsgi.hub import Hub


def server_info(environ: dict[str, Any], hub: Hub) -> dict[str, Any]:
    """Return facts about the server, its threads, and the hub's settings.

    :param environ: the environ of any request to the server.
    :returns: JSON values.
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
        **gunicorn_worker.facts(),
    }
