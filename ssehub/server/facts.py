"""Facts: how a process serves, as far as it can know: what no client can see, for those who look for a fault."""

from __future__ import annotations

import os
from typing import Any

from ssehub.server import peer
from ssehub.server.hub import Hub

#: What an integration has learnt of the server that runs this process; see :func:`note`.
_noted: dict[str, Any] = {}


def note(**facts: Any) -> None:
    """Remember what the server has told of itself; an integration calls this, in the process that serves.

    :param facts: values of JSON. ``worker``, ``threads``, ``processes``, ``preload`` and ``hook`` are those that
        ``ssehub doctor`` knows.
    """
    _noted.update(facts)


def facts_of(environ: dict[str, Any], hub: Hub) -> dict[str, Any]:
    """Tell how a request is served, and how the hub's streams are: the server, its threads, the hub's settings.

    :param environ: of any request to the server.
    :returns: values of JSON.
    """
    pace = hub.pace
    return {
        "software": environ.get("SERVER_SOFTWARE", ""),
        "multithread": bool(environ.get("wsgi.multithread")),
        "multiprocess": bool(environ.get("wsgi.multiprocess")),
        "shows_socket": peer.find_socket(environ) is not None,
        "pid": os.getpid(),
        "shared_log": hub.is_shared,
        "heartbeat": pace.heartbeat,
        "retry": pace.retry,
        "max_connections": pace.max_connections,
        **_noted,
    }
