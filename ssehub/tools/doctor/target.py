"""Target: the stream that the doctor checks, and the options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from ssehub.client.responses import bare
from ssehub.client.transport import check_url

#: Maximum number of open streams. Each uses a thread here.
MAX_STREAMS = 1000


@dataclass(frozen=True)
class Target:
    """The options of the doctor. Immutable.

    :param url: the URL of the stream.
    :param headers: headers of requests to the stream and to the endpoints next to it.
    :param token: the token of the service.
    :param origin: the origin whose pages use the stream, ``https://app.example``.
    :param streams: number of streams to open at once.
    :param time: seconds for which the stream is watched. None: one and a half heartbeats if the service reports its
        heartbeat, else 20.
    :param send_url: the endpoint for test messages; next to the stream by default.
    :param stats_url: the endpoint with the statistics; next to the stream by default.
    :param verify: as in ``requests``: False, or a file with trusted certificates.
    :param log: the URL of a shared log that is checked as well.
    :param log_name: the name of that log.
    :param log_size: the configured size of that log in entries.
    :param partitions: the number of partitions of that log.
    :raises ValueError: if a value is invalid.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None
    origin: str | None = None
    streams: int = 6
    time: float | None = None
    send_url: str | None = None
    stats_url: str | None = None
    verify: bool | str = True
    log: str | None = None
    log_name: str = "ssehub"
    log_size: int = 10_000
    partitions: int = 1

    def __post_init__(self) -> None:
        for url in (self.url, self.send_url, self.stats_url):
            if url is not None:
                _check_http(url)
        if not 1 <= self.streams <= MAX_STREAMS:
            raise ValueError(f"streams must be 1 to {MAX_STREAMS}, not {self.streams}")
        if self.time is not None and not 0 < self.time <= 86400:
            raise ValueError(f"time must be seconds, at most a day, not {self.time:g}")

    def beside(self, name: str) -> str:
        """Return the URL of an endpoint next to the stream: ``/events`` becomes ``/stats``."""
        return urljoin(self.url.partition("?")[0].partition("#")[0], name)

    def options(self, url: str, **headers: str) -> dict[str, Any]:
        """Return the arguments for a request, as in ``requests``. Another host gets no cookie of this one."""
        own = urlsplit(url)[:2] == urlsplit(self.url)[:2]
        return {"headers": {**(self.headers if own else {}), **headers}, "verify": self.verify}


def _check_http(url: str) -> None:
    check_url(url)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise requests.exceptions.InvalidURL(
            f"not an address of the web, which is like http://host/events: {bare(url)}"
        )
