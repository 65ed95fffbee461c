"""The application that the tests put on real servers: the service, and two handles for the tests."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qs

from werkzeug.wrappers import Response

from ssehub import Hub, MemoryLog
from ssehub.service import create_app

hub = Hub(MemoryLog(int(os.environ.get("LOG_SIZE", "10000"))), heartbeat=float(os.environ.get("HEARTBEAT", "3600")))
service = create_app(hub, public=False)


def app(environ: dict[str, Any], start_response: Any) -> Any:
    """Answer as the service does; ``/burst?n=&size=`` sends n numbered messages, ``/close`` closes the hub."""
    path = environ.get("PATH_INFO")
    if path == "/burst":
        query = parse_qs(environ.get("QUERY_STRING", ""))
        first, count = int(query.get("from", ["0"])[0]), int(query["n"][0])
        padding = "x" * int(query.get("size", ["40"])[0])
        for n in range(first, first + count):
            hub.broadcast(f"{n} 0.0 {padding}")
        return Response("done")(environ, start_response)
    if path == "/close":
        hub.close()
        return Response("closed")(environ, start_response)
    return service(environ, start_response)
