"""What every test may use: servers in this process, and the rule that no thread survives a test."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from ssehub import Client, Hub
from tests.browser import browser, open_tab
from tests.redis_server import RedisServer
from tests.scripted import QUICK, Exchange, Script, Server
from tests.servers import ROOT
from tests.streams import GUARD, Stream, opened_streams

__all__ = ["browser", "open_tab"]

#: A shell has what it starts in the background ignore Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_stream_stays_open() -> Iterator[None]:
    """Close what a test has left open, in its failure for instance."""
    yield
    while opened_streams:
        opened_streams.pop().close()


@pytest.fixture(autouse=True)
def no_thread_survives() -> Iterator[None]:
    """Fail a test that leaves a thread behind; servers and streams may take a moment to go."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + GUARD
    while left := [thread for thread in threading.enumerate() if thread not in before]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads left behind: {left}")
        left[0].join(0.05)


class _Handler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing."""


class Site:
    """A real server for an application, in a thread of this process."""

    def __init__(self, app: Any) -> None:
        self.server: BaseWSGIServer = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Handler)
        self.port = self.server.port
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self._thread.start()

    def stream(self, path: str = "/", **headers: str) -> Stream:
        return Stream(self.port, path, headers)

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def site() -> Iterator[Callable[[Any], Site]]:
    """Give a function that serves a WSGI application until the test is over."""
    sites: list[Site] = []

    def serve(app: Any) -> Site:
        sites.append(Site(app))
        return sites[-1]

    yield serve
    for one in sites:
        one.close()


#: Fixtures, and the markers of the tests that use them.
_MARKERS = {"redis_server": "redis", "cluster": "redis", "browser": "browser", "open_tab": "browser"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its folder, and with what it needs."""
    for item in items:
        item.add_marker(item.path.relative_to(ROOT / "tests").parts[0])
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in _MARKERS:
                item.add_marker(_MARKERS[fixture])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that serves a hub's streams over all ways of delivery."""
    if {"site", "make_hub"} <= set(metafunc.fixturenames):
        ways = [False, None, True]
        metafunc.parametrize("detach", ways, ids=["threads", "parked", "detached"], indirect=True)


@pytest.fixture
def detach(request: pytest.FixtureRequest) -> bool | None:
    """Give the way of delivery: whether streams leave their threads."""
    return getattr(request, "param", None)


@pytest.fixture
def make_hub(detach: bool | None) -> Iterator[Callable[..., Hub]]:
    """Give a function that makes hubs, which are closed when the test is over."""
    hubs: list[Hub] = []

    def make(*args: Any, **options: Any) -> Hub:
        hubs.append(Hub(*args, **{"detach": detach, **options}))
        return hubs[-1]

    yield make
    for hub in hubs:
        hub.close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., Server]]:
    """Give a function that runs a script as a server until the test is over."""
    servers: list[Server] = []

    def serve(script: Script, **options: bool) -> Server:
        servers.append(Server(script, **options))
        return servers[-1]

    yield serve
    for one in servers:
        one.close()


@pytest.fixture
def follow(scripted: Callable[..., Server]) -> Iterator[Callable[..., Client]]:
    """Give a function that makes a client, impatient by default, of a script."""
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
    """Give a Redis server that all tests share; each uses names of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()
