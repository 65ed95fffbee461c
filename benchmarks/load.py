"""Load: the messages that a benchmark makes a server send, and the requests for them.

Each message starts with its number and the time at which it was due (``time.monotonic()``). The numbers of messages to
all clients increase by one. So do the numbers of messages to one client, which have a leading ``@``.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Due(NamedTuple):
    """A message, and the time at which it has to be sent (``time.monotonic()``)."""

    when: float
    #: The receiver; None for all clients.
    client: str | None
    text: str


class Load:
    """Creates the messages.

    ``POST /burst?n=&size=`` sends n messages to all clients as fast as possible. ``POST
    /rate?per_second=&seconds=&size=`` sends messages to all clients at a fixed rate. ``POST /each?n=&clients=&size=``
    sends n messages, each to a random client; the ids of the clients are the numbers from 0. ``GET /ready`` sends none.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._own: dict[str, Iterator[int]] = {}

    def plan(self, method: str, path: str, query: str) -> Iterator[Due] | None:
        """Return an iterator that creates the messages of a request; None if the request is invalid."""
        plans: dict[str, Callable[..., Iterator[Due]]] = {
            "POST /burst": self._burst,
            "POST /rate": self._rate,
            "POST /each": self._each,
            "GET /ready": lambda: iter(()),
        }
        found = plans.get(f"{method} {path}")
        return found and found(**{name: float(value) for name, value in parse_qsl(query)})

    def _burst(self, n: float, size: float = 100) -> Iterator[Due]:
        for _ in range(int(n)):
            yield self._to_all(time.monotonic(), size)

    def _rate(self, per_second: float, seconds: float, size: float = 100) -> Iterator[Due]:
        """Stop after one and a half times the seconds, because the server is too slow for this rate."""
        started = time.monotonic()
        for count in range(int(per_second * seconds)):
            if time.monotonic() > started + seconds * 1.5:
                return
            yield self._to_all(started + count / per_second, size)

    def _each(self, n: float, clients: float, size: float = 100) -> Iterator[Due]:
        choose = random.Random(1).randrange
        for _ in range(int(n)):
            client = str(choose(int(clients)))
            number = next(self._own.setdefault(client, itertools.count(1)))
            now = time.monotonic()
            yield Due(now, client, _text(f"@{number}", now, size))

    def _to_all(self, when: float, size: float) -> Due:
        return Due(when, None, _text(str(next(self._numbers)), when, size))


class WsgiLoad:
    """Serves the requests for a load, and sends the messages in the thread of the request.

    :param publish: sends a text to all clients.
    :param send: sends a text to one client; None if the application cannot.
    :param flush: called when there is no message to send for a moment, and at the end.
    """

    def __init__(
        self,
        publish: Callable[[str], object],
        send: Callable[[str, str], object] | None = None,
        flush: Callable[[], object] = lambda: None,
    ) -> None:
        self._load = Load()
        self._publish = publish
        self._send = send
        self._flush = flush

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Send the requested messages, and respond when all are sent."""
        started = time.monotonic()
        plan = self._load.plan(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"])
        if plan is None:
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        for when, client, text in plan:
            if (wait := when - time.monotonic()) > 0:  # without a sleep in a burst, not even of 0 s
                self._flush()
                time.sleep(wait)
            if client is None:
                self._publish(text)
            elif self._send is not None:
                self._send(client, text)
        self._flush()
        body = json.dumps({"started": started}).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


def _text(number: str, when: float, size: float) -> str:
    return f"{number} {when:.6f} ".ljust(int(size), "x")
