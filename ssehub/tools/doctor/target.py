"""Target: which stream is looked at, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from ssehub.client.transport import check_url

#: Streams opened at the most: each takes a thread here.
MAX_STREAMS = 1000


@dataclass(frozen=True)
class Target:
    """Hold what the doctor is told. Immutable.

    :param url: the stream.
    :param headers: request headers, for the stream and whatever lies beside it.
    :param token: the service's token.
    :param origin: the site whose pages are to follow the stream, ``https://app.example``.
    :param streams: streams to have open at once.
    :param time: seconds that the stream is watched; None: one and a half heartbeats if the service tells its
        heartbeat, else 20.
    :param send_url: where test messages are posted to; beside the stream by default.
    :param stats_url: where the service tells of itself; beside the stream by default.
    :param verify: as in ``requests``: False, or a file with the certificates to trust.
    :param log: the address of the shared log on Redis, if that is to be looked at, too.
    :param log_name: the name of that log.
    :param log_size: the number of entries it is to keep.
    :param partitions: the number of streams it is spread over.
    :raises ValueError: if a value is unfit.
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
        """Return the address of what lies beside the stream: ``/events`` becomes ``/stats``."""
        return urljoin(self.url.partition("?")[0].partition("#")[0], name)

    def options(self, url: str, **headers: str) -> dict[str, Any]:
        """Return how to ask for something, as ``requests`` takes it. Another host gets no cookie of this one."""
        own = urlsplit(url)[:2] == urlsplit(self.url)[:2]
        return {"headers": {**(self.headers if own else {}), **headers}, "verify": self.verify}


def _check_http(url: str) -> None:
    check_url(url)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise requests.exceptions.InvalidURL(f"not an address of the web, which is like http://host/events: {url!r}")
    _ = parts.port  # raises, if it is none
