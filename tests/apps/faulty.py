"""A service that loses, doubles or reorders on purpose: each fifth message, on one stream of two."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from werkzeug.wrappers import Request, Response

FAULT = os.environ.get("FAULT", "")


class Service:
    """Serve ``/events`` and ``/send`` as ssehub's service does, wrongly."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: list[queue.Queue[bytes]] = []
        self._count = 0
        self._held = b""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Answer one request."""
        request = Request(environ)
        if request.path != "/send":
            return Response(self._stream(), mimetype="text/event-stream")(environ, start_response)
        with self._lock:
            self._send(b"data: %s\n\n" % request.get_json()["data"].encode())
        return Response("{}", mimetype="application/json")(environ, start_response)

    def _stream(self) -> Iterator[bytes]:
        mine: queue.Queue[bytes] = queue.Queue()
        with self._lock:
            self._queues.append(mine)
        yield b": there\n\n"
        while True:
            yield mine.get()

    def _send(self, event: bytes) -> None:
        self._count += 1
        wrong = event
        if self._count % 5 == 2:
            wrong = {"lose": b"", "double": event * 2, "reorder": b""}[FAULT]
            self._held = event if FAULT == "reorder" else b""
        elif self._held:
            wrong, self._held = event + self._held, b""
        for n, mine in enumerate(self._queues):
            if one := wrong if n % 2 else event:
                mine.put(one)


app = Service()
