"""Service: what lies beside a stream: an ordinary request, the service's own words, a way to send."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from ssehub.client.json_answer import PLAIN, read_json
from ssehub.doctor.case import Case

_CONNECT = 5.0
#: Bytes of an answer at the most; one with ten thousand sessions takes one and a half million.
_LONGEST = 1 << 24


@dataclass(frozen=True)
class Answer:
    """Hold how an ordinary request went."""

    seconds: float
    #: None if there was no answer.
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The JSON object of a 200.
    value: dict[str, Any] | None = None
    error: Exception | None = None

    @property
    def is_there(self) -> bool:
        """Whether the application has answered, whatever it was, and no proxy in its place."""
        return self.status is not None and self.status not in (502, 503, 504)


class Service:
    """Ask what lies beside a stream. Safe to use from any thread."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self.stats_url = case.stats_url or case.beside("stats")
        self.send_url = case.send_url or case.beside("send")

    def ask(self, patience: float) -> Answer:
        """Make an ordinary request: for the service's numbers, where there are any.

        :param patience: seconds to wait for an answer, whatever it is.
        """
        began = time.monotonic()
        options = self._case.options(self.stats_url, **PLAIN, **self._authorization())
        with requests.Session() as session:
            try:
                timeout = (min(_CONNECT, patience), patience)
                response = session.get(self.stats_url, stream=True, timeout=timeout, **options)
            except requests.RequestException as error:
                return Answer(time.monotonic() - began, error=error)
            with response:
                # What is no JSON may be a stream, without an end.
                is_json = "json" in response.headers.get("Content-Type", "")
                value = _object(response, patience) if is_json else None
                return Answer(time.monotonic() - began, response.status_code, response.headers, value)

    def send(self, client_id: str, data: str, patience: float) -> None:
        """Send a message to one client.

        :param patience: seconds to wait for the answer.
        :raises requests.RequestException: if it was not accepted.
        """
        fields = {"client_id": client_id, "data": data, "event": "ssehub-doctor"}
        options = self._case.options(self.send_url, **self._authorization())
        timeout = (min(_CONNECT, patience), patience)
        with requests.Session() as session:
            # Redirected it would be a GET, and what answers that perhaps a stream.
            response = session.post(
                self.send_url, json=fields, stream=True, timeout=timeout, allow_redirects=False, **options
            )
            with response:
                if response.status_code != 200:
                    raise requests.HTTPError(f"{response.status_code} {response.reason}", response=response)

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._case.token}"} if self._case.token else {}


def _object(response: requests.Response, patience: float) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, requests.RequestException):
        value = read_json(response, _LONGEST, patience)
        return value if response.status_code == 200 and isinstance(value, dict) else None
    return None
