"""The application of the benchmarks with ssehub: ``gunicorn benchmarks.hubapp:application``.

``$REDIS_URL`` is the address of a shared log, ``$RETRY`` the hub's ``retry``, and ``$DETACH`` its ``detach``: ``true``,
``false``, or empty for None.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from benchmarks.load import WsgiLoad
from ssehub import Hub, RedisLog

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ZONE = "bench"

url = os.environ.get("REDIS_URL")
hub = Hub(
    RedisLog(url) if url else None,
    retry=int(os.environ.get("RETRY", "2000")),
    detach={"": None, "true": True, "false": False}[os.environ.get("DETACH", "")],
)
load = WsgiLoad(lambda text: hub.broadcast(text, zone=ZONE), lambda client, text: hub.send(client, text, zone=ZONE))


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Serve ``GET /events`` and the load."""
    if environ["PATH_INFO"] != "/events":
        return load(environ, start_response)
    client_id = parse_qs(environ["QUERY_STRING"]).get("client_id", [None])[-1]
    return hub.connect(environ, zone=ZONE, client_id=client_id)(environ, start_response)
