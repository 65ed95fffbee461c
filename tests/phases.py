"""The phases in which a client can be stopped, and server scripts that keep a client in one phase."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ssehub import Client
from tests.scripted import STREAM, Exchange, Script, Server, held


def redirect_once(exchange: Exchange) -> bool:
    """Answer the first request with a redirect, so that the client makes a second one on the same connection."""
    if exchange.number > 1:
        exchange.hold()
    exchange.send(b"HTTP/1.1 307 Go\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n")
    return True


#: For each phase, the server script that keeps the client in it.
PHASES: dict[str, Script] = {
    "headers": held(),
    "half the headers": held(b"HTTP/1.1 200 OK\r\nContent-"),
    "second request": redirect_once,
    "body": held(STREAM + b"data: x\n\n"),
    "silent body": held(STREAM),
    "chunked body": held(STREAM[:-2] + b"Transfer-Encoding: chunked\r\n\r\n5\r\nda"),
    "gzip body": held(STREAM[:-2] + b"Content-Encoding: gzip\r\n\r\n"),
    "backoff": lambda exchange: exchange.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nRetry-After: 3600\r\n\r\n"),
}


def in_phase(phase: str, server: Server, client: Client) -> Callable[[], bool]:
    """Return a function that returns whether the client is in a phase."""
    opened, failed = threading.Event(), threading.Event()
    client.on_connection(opened.set)
    client.on_error(lambda error, delay: failed.set())
    if phase.endswith("body"):
        return opened.is_set
    if phase == "backoff":
        return failed.is_set
    if phase == "handshake":
        return lambda: server.accepted > 0
    return lambda: len(server.requests) == (2 if phase == "second request" else 1)
