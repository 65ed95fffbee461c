"""Service: requests to the endpoints next to a stream: the statistics, and the one to send messages."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from ssehub.client.cancellation import Cancellation
from ssehub.client.transport import Stream, Timeout, Transport
from ssehub.tools.doctor.target import Target

#: Requests a response without compression, because a short compressed one may expand to any length.
PLAIN = {"Accept-Encoding": "identity"}
_CONNECT = 5.0
#: Maximum size of a response in bytes. One with ten thousand sessions has one and a half million.
_LONGEST = 1 << 24


@dataclass(frozen=True)
class Answer:
    """The result of an ordinary request."""

    seconds: float
    #: None if there was no response.
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The JSON object of a 200.
    value: dict[str, Any] | None = None
    error: Exception | None = None

    @property
    def is_there(self) -> bool:
        """Whether the application itself has responded, with any status, and not a proxy in its place."""
        return self.status is not None and self.status not in (502, 503, 504)


class Service:
    """The endpoints next to a stream. Thread-safe."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.stats_url: str = target.stats_url or target.beside("stats")
        self.send_url: str = target.send_url or target.beside("send")

    def ask(self, patience: float) -> Answer:
        """Make an ordinary request. If there is a service, it is a request for the statistics.

        :param patience: seconds to wait for any response.
        """
        began = time.monotonic()
        options = self._target.options(self.stats_url, **PLAIN, **self._authorization())
        try:
            with self._open("GET", self.stats_url, patience, options) as stream:
                response = stream.response
                # What is no JSON may be a stream, without an end.
                is_json = "json" in response.headers.get("Content-Type", "")
                value = _object(response, patience) if is_json else None
                return Answer(time.monotonic() - began, response.status_code, response.headers, value)
        except requests.RequestException as error:
            return Answer(time.monotonic() - began, error=error)

    def send(self, client_id: str, data: str, patience: float) -> None:
        """Send a message to one client.

        :param patience: seconds to wait for the response.
        :raises requests.RequestException: if the message was not accepted.
        """
        fields = {"client_id": client_id, "data": data, "event": "ssehub-doctor"}
        options = self._target.options(self.send_url, **self._authorization())
        # Redirected it would be a GET, and what answers that perhaps a stream.
        options.update(json=fields, allow_redirects=False)
        with self._open("POST", self.send_url, patience, options) as stream:
            response = stream.response
            if response.status_code != 200:
                raise requests.HTTPError(f"{response.status_code} {response.reason}", response=response)

    @contextlib.contextmanager
    def _open(self, method: str, url: str, patience: float, options: dict[str, Any]) -> Iterator[Stream]:
        transport = Transport(None, Timeout(min(_CONNECT, patience), patience, patience))
        with (
            contextlib.closing(transport),
            transport.open(Cancellation(), method, url, **options) as stream,
        ):
            yield stream

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._target.token}"} if self._target.token else {}


def _object(response: requests.Response, patience: float) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, requests.RequestException):
        value = read_json(response, _LONGEST, patience)
        return value if response.status_code == 200 and isinstance(value, dict) else None
    return None


def read_json(response: requests.Response, longest: int, seconds: float) -> Any:
    """Read the body of a response as JSON, and close the response.

    :param response: the response to a request with ``stream=True`` and :data:`PLAIN`.
    :param longest: maximum number of bytes.
    :param seconds: maximum time for the whole body.
    :raises ValueError: if it is not JSON, is compressed, is longer, or takes longer.
    :raises requests.RequestException: if it breaks off.
    """
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise ValueError("the response is compressed, although the request did not allow it")
    text, deadline = bytearray(), time.monotonic() + seconds
    with Stream(response, Cancellation(), seconds) as stream:
        while piece := stream.read():
            text += piece
            if len(text) > longest:
                raise ValueError(f"the response is longer than {longest} bytes")
            if time.monotonic() > deadline:
                raise ValueError(f"the response takes longer than {seconds:g} s")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the response is nested too deeply") from error
