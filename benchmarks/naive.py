"""A common naive application: a list of ``queue.Queue``, one for each subscriber.

Start it with ``gunicorn benchmarks.naive:application``.
"""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from benchmarks.load import WsgiLoad

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

EVENT_STREAM = [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache")]

subscribers: list[queue.Queue[str]] = []


def stream() -> Iterator[bytes]:
    """Yield the messages that are published from now on."""
    messages: queue.Queue[str] = queue.Queue()
    subscribers.append(messages)
    yield b": ok\n\n"  # servers send the headers together with the first chunk
    while True:
        yield f"data: {messages.get()}\n\n".encode()


def publish(text: str) -> None:
    """Put a message into each subscriber's queue."""
    for messages in subscribers:
        messages.put(text)


load = WsgiLoad(publish)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Serve ``GET /events`` and the load."""
    if environ["PATH_INFO"] != "/events":
        return load(environ, start_response)
    start_response("200 OK", EVENT_STREAM)
    return stream()
