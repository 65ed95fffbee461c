"""The same application on ssehub: ``gunicorn benchmarks.hubapp:application``; with ``$REDIS_URL`` on a shared log."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from benchmarks.naive import Load
from ssehub import Hub, RedisLog

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ZONE = "bench"

url = os.environ.get("REDIS_URL")
hub = Hub(RedisLog(url) if url else None, retry=int(os.environ.get("RETRY", "2000")))
load = Load(lambda text: hub.broadcast(text, zone=ZONE), lambda: len(hub.connections(ZONE)))


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Serve ``GET /events``, and the load."""
    if environ["PATH_INFO"] != "/events":
        return load(environ, start_response)
    return hub.connect(environ, zone=ZONE)(environ, start_response)
