"""The application of the benchmarks with sse-starlette: an ``asyncio.Queue`` for each client.

Start it with ``uvicorn benchmarks.peers.starlette_app:application``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.load import Load

load = Load()
#: The queue of each client, by its id.
queues: dict[str, asyncio.Queue[str]] = {}


async def stream(client_id: str) -> AsyncIterator[dict[str, str]]:
    """Yield the messages to a client from now on."""
    queue = queues[client_id] = asyncio.Queue()
    try:
        yield {"comment": "ok"}
        while True:
            yield {"data": await queue.get()}
    finally:
        del queues[client_id]


async def events(request: Request) -> Response:
    """Serve ``GET /events``."""
    port = request.client.port if request.client else 0
    return EventSourceResponse(stream(request.query_params.get("client_id", f"port {port}")))


async def control(request: Request) -> Response:
    """Send the messages of a load request."""
    started = time.monotonic()
    plan = load.plan(request.method, request.url.path, request.url.query)
    if plan is None:
        return Response(status_code=404)
    for when, client, text in plan:
        if (wait := when - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if client is None:
            for queue in queues.values():
                queue.put_nowait(text)
        elif client in queues:
            queues[client].put_nowait(text)
    return JSONResponse({"started": started})


application = Starlette(
    routes=[Route("/events", events), Route("/{load}", control, methods=["GET", "POST"])],
)
