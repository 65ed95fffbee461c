"""The application people paste today, a list of ``queue.Queue``; and the load that benchmarks put on an application.

``gunicorn benchmarks.naive:application``
"""

from __future__ import annotations

import itertools
import json
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

EVENT_STREAM = [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache")]


class Load:
    """Publishes numbered, time-stamped messages from inside the server's process, as a request tells it to.

    ``POST /burst?n=&size=`` as fast as it goes, ``POST /rate?per_second=&seconds=&size=`` at a fixed offered rate,
    ``GET /stats`` how many are connected and the seconds of processor this process took so far.
    """

    def __init__(self, publish: Callable[[str], object], count: Callable[[], int]) -> None:
        self._publish = publish
        self._count = count
        self._numbers = itertools.count(1)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve everything but the stream itself."""
        query = {name: float(values[-1]) for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        actions: dict[str, Callable[..., dict[str, Any]]] = {
            "POST /burst": self.burst,
            "POST /rate": self.rate,
            "GET /stats": self.stats,
        }
        action = actions.get(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if action is None:
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        body = json.dumps(action(**query)).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def burst(self, n: float, size: float = 100) -> dict[str, Any]:
        """Publish n messages back to back."""
        started = time.monotonic()
        for _ in range(int(n)):
            self._send(time.monotonic(), int(size))
        return {"started": started, "ended": time.monotonic(), "published": int(n)}

    def rate(self, per_second: float, seconds: float, size: float = 100) -> dict[str, Any]:
        """Publish at a fixed rate, and give up after one and a half times the time this should take.

        A message is stamped with the time it was due at: a publisher that its own readers hold up does not make the
        latency look better than it is.
        """
        started = time.monotonic()
        published = 0
        while published < per_second * seconds and time.monotonic() < started + seconds * 1.5:
            due = started + published / per_second
            time.sleep(max(0.0, due - time.monotonic()))
            self._send(due, int(size))
            published += 1
        return {"started": started, "ended": time.monotonic(), "published": published}

    def stats(self) -> dict[str, Any]:
        """Return the number of streams and the processor time of this process."""
        return {"streams": self._count(), "cpu": time.process_time()}

    def _send(self, stamp: float, size: int) -> None:
        self._publish(f"{next(self._numbers)} {stamp:.6f} ".ljust(size, "x"))


subscribers: list[queue.Queue[str]] = []


def stream() -> Iterator[bytes]:
    """Yield what is published from now on."""
    messages: queue.Queue[str] = queue.Queue()
    subscribers.append(messages)
    yield b": ok\n\n"  # no server sends its headers before the first chunk
    while True:
        yield f"data: {messages.get()}\n\n".encode()


def publish(text: str) -> None:
    """Put a message on every subscriber's queue."""
    for messages in subscribers:
        messages.put(text)


load = Load(publish, lambda: len(subscribers))


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Serve ``GET /events``, and the load."""
    if environ["PATH_INFO"] != "/events":
        return load(environ, start_response)
    start_response("200 OK", EVENT_STREAM)
    return stream()
