"""The logs that several processes can share, for tests that hold for each of them."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from ssehub import Log
from ssehub.log.urls import open_log

#: The kinds of shared logs, for the parameters of fixtures.
KINDS = [
    pytest.param("redis", marks=pytest.mark.redis),
    pytest.param("sqlite"),
    pytest.param("postgres", marks=pytest.mark.postgres),
]


class SharedLog:
    """A new log on a real server or in a file. Each call returns an object for another process.

    :param kind: one of :data:`KINDS`.
    """

    def __init__(self, request: pytest.FixtureRequest, kind: str) -> None:
        self.kind = kind
        self.name = f"log_{secrets.token_hex(8)}"
        #: The server; None for a file.
        self.server: Any = None if kind == "sqlite" else request.getfixturevalue(f"{kind}_server")
        if kind == "sqlite":
            self.url = f"sqlite:{request.getfixturevalue('tmp_path')}/{self.name}.db"
        else:
            self.url = self.server.url if kind == "redis" else self.server.dsn()

    def __call__(self, **options: Any) -> Log:
        return open_log(self.url, name=self.name, **options)
