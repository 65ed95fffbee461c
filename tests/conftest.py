"""Fixtures for all tests: servers, hubs and clients, and a check that no thread survives a test."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from ssehub import Client, Hub
from tests.browser import browser, open_tab
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer
from tests.scripted import QUICK, Exchange, Script, Server
from tests.servers import ROOT
from tests.streams import GUARD, Stream, opened_streams

__all__ = ["browser", "open_tab"]

#: Shells start background jobs with Ctrl-C ignored. All processes that the tests start would inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_stream_stays_open() -> Iterator[None]:
    """Close the streams that a test has left open, for example because it failed."""
    yield
    while opened_streams:
        opened_streams.pop().close()


@pytest.fixture(autouse=True)
def no_thread_survives() -> Iterator[None]:
    """Fail a test that leaves a thread behind. Threads of servers and streams may take a moment to end."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + GUARD
    while left := [thread for thread in threading.enumerate() if thread not in before]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads left behind: {left}")
        left[0].join(0.05)


class _Handler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Log nothing."""


class Site:
    """A real HTTP server for a WSGI application, in a thread of this process."""

    def __init__(self, app: Any) -> None:
        self.server: BaseWSGIServer = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Handler)
        self.port = self.server.port
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self._thread.start()

    def stream(self, path: str = "/", **headers: str) -> Stream:
        return Stream(self.port, path, headers)

    def close(self) -> None:
        stopping = threading.Thread(target=self.server.shutdown)
        stopping.start()
        while self._thread.is_alive():
            # The server notices that it has to stop at its next poll, or after a connection, which is sooner.
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), GUARD).close()
            self._thread.join(0.01)
        stopping.join()
        self.server.server_close()


@pytest.fixture
def site() -> Iterator[Callable[[Any], Site]]:
    """Return a function that serves a WSGI application until the end of the test."""
    sites: list[Site] = []

    def serve(app: Any) -> Site:
        sites.append(Site(app))
        return sites[-1]

    yield serve
    for one in sites:
        one.close()


#: The marker for tests that use a fixture.
_MARKERS = {
    "redis_server": "redis",
    "cluster": "redis",
    "postgres_server": "postgres",
    "browser": "browser",
    "open_tab": "browser",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the name of its folder, and with the marker of each server or browser that it needs."""
    for item in items:
        item.add_marker(item.path.relative_to(ROOT / "tests").parts[0])
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in _MARKERS:
                item.add_marker(_MARKERS[fixture])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that serves a hub's streams with all ways of delivery."""
    if {"site", "make_hub"} <= set(metafunc.fixturenames):
        ways = [False, None, True]
        metafunc.parametrize("detach", ways, ids=["threads", "parked", "detached"], indirect=True)


@pytest.fixture
def detach(request: pytest.FixtureRequest) -> bool | None:
    """Return the way of delivery: the value of the hub's setting ``detach``."""
    return getattr(request, "param", None)


@pytest.fixture
def make_hub(detach: bool | None) -> Iterator[Callable[..., Hub]]:
    """Return a function that makes hubs. Close them after the test."""
    hubs: list[Hub] = []

    def make(*args: Any, **options: Any) -> Hub:
        hubs.append(Hub(*args, **{"detach": detach, **options}))
        return hubs[-1]

    yield make
    for hub in hubs:
        hub.close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., Server]]:
    """Return a function that runs a script as a server until the end of the test."""
    servers: list[Server] = []

    def serve(script: Script, **options: bool) -> Server:
        servers.append(Server(script, **options))
        return servers[-1]

    yield serve
    for one in servers:
        one.close()


@pytest.fixture
def follow(scripted: Callable[..., Server]) -> Iterator[Callable[..., Client]]:
    """Return a function that makes a client of a scripted server. By default it reconnects quickly."""
    clients: list[Client] = []

    def make(script: Callable[[Exchange], object], path: str = "/", **options: Any) -> Client:
        server = scripted(script)
        options = {"backoff": QUICK, "reconnect_delay": 0.001, **options}
        client = Client(server.url + path, **options)
        client.server = server  # type: ignore[attr-defined]
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.stop(GUARD)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a Redis server that all tests share. Each test uses other log names."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Return a PostgreSQL server that all tests share. Each test uses other log names, or a database of its own."""
    server = PostgresServer(synchronous_commit="off")
    yield server
    server.close()
