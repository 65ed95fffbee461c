"""Warnings: what the hub says of a server that is not set up for streams, and of one that is not a server."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext
from asgiref.wsgi import WsgiToAsgi

from ssehub import Hub
from ssehub.service import create_app
from ssehub.wsgi import warnings
from tests.servers import ROOT, answers, free_port, missing
from tests.streams import GUARD, Stream, until

MakeHub = Callable[..., Hub]


@pytest.fixture(autouse=True)
def nothing_said_yet() -> Iterator[None]:
    warnings._warn.cache_clear()
    yield
    warnings._warn.cache_clear()


def through_asgi(wrapper: Any, hub: Hub) -> None:
    """Open a stream through a wrapper, and end it after its first bytes."""
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])
    ends: list[threading.Thread] = []
    headers = [(b"host", b"localhost")]

    async def receive() -> dict[str, Any]:
        return next(asked)

    async def send(event: dict[str, Any]) -> None:
        if event.get("body") and not ends:
            ends.append(threading.Thread(target=hub.close))
            ends[0].start()

    scope = {"type": "http", "method": "GET", "path": "/events", "query_string": b"", "headers": headers}
    scope |= {"http_version": "1.1", "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 5000)}

    async def run() -> None:
        async with ThreadSensitiveContext():  # or asgiref's thread would outlive the test
            await asyncio.wait_for(wrapper(scope, receive, send), GUARD)

    asyncio.run(run())
    ends[0].join()


def test_a_stream_through_asgirefs_wrapper_is_warned_of(make_hub: MakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub = make_hub(detach=False)
    through_asgi(WsgiToAsgi(create_app(hub)), hub)
    (record,) = caplog.records
    assert "wrapper from ASGI to WSGI" in record.message and "gunicorn" in record.message


@pytest.mark.filterwarnings("ignore:Uvicorn's native WSGI:DeprecationWarning")
def test_a_stream_through_uvicorns_wrapper_is_warned_of(make_hub: MakeHub, caplog: pytest.LogCaptureFixture) -> None:
    from uvicorn.middleware import wsgi as wrappers

    hub = make_hub(detach=False)
    wrapper = wrappers.WSGIMiddleware(create_app(hub))
    through_asgi(wrapper, hub)
    wrapper.executor.shutdown()
    assert "wrapper from ASGI to WSGI" in caplog.text and "several processes" not in caplog.text


@pytest.mark.parametrize("detach", [None, True, False])
def test_through_a2wsgi_a_client_that_leaves_is_noticed_at_once(
    detach: bool | None, make_hub: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        from a2wsgi import WSGIMiddleware
    except ImportError:
        missing("a2wsgi")
    import uvicorn

    hub, left = make_hub(heartbeat=3600.0, detach=detach), []
    hub.on_disconnect(lambda connection: left.append(connection.closed))
    wrapper, port = WSGIMiddleware(create_app(hub)), free_port()
    server = uvicorn.Server(uvicorn.Config(wrapper, port=port, log_level="error", lifespan="off"))
    serving = threading.Thread(target=server.run)
    serving.start()
    try:
        until(lambda: answers(port), "uvicorn to answer")
        streams = [Stream(port, "/events") for _ in range(8)]
        for stream in streams:
            stream.opened()
        hub.broadcast("hello")
        for stream in streams:
            assert stream.message().data == "hello"
            stream.close()
        until(lambda: left == ["hang-up"] * 8)
        assert answers(port) and "wrapper from ASGI" in caplog.text
        Stream(port, "/events").opened()
    finally:
        hub.close()
        server.should_exit = True
        serving.join(GUARD)
        wrapper.executor.shutdown()
    assert left[8:] == ["shutdown"]


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"asgi.scope": {}, "wsgi.multiprocess": True, "SERVER_SOFTWARE": "x"}, "wrapper from ASGI to WSGI"),
        ({"wsgi.multiprocess": True, "wsgi.multithread": True}, "several processes"),
        ({"wsgi.multiprocess": True, "SERVER_SOFTWARE": "waitress", "wsgi.input": io.BytesIO()}, "several processes"),
        ({"wsgi.multiprocess": True, "wsgi.input": io.BytesIO()}, None),  # a test client
        ({"wsgi.multiprocess": False, "wsgi.multithread": True}, None),
    ],
)
def test_a_warning_fits_the_server_and_comes_once(
    environ: dict[str, Any], text: str | None, make_hub: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub = make_hub()
    for _ in range(2):
        hub.connect({"REQUEST_METHOD": "GET", **environ})
    assert [text in record.message for record in caplog.records] == ([True] if text else [])


ALONE = "no client can have received the messages of this process"


@pytest.mark.parametrize(
    ("code", "warned"),
    [
        ("hub.broadcast('x'); hub.broadcast('y'); Hub().send('ada', 'z')", True),
        ("hub.broadcast('x'); hub.close()", True),
        ("hub.broadcast('x'); next(hub.stream())", False),
        ("hub.cursor(); hub.broadcast('x')", False),
        ("hub.connect({'REQUEST_METHOD': 'GET'}); hub.broadcast('x')", False),
        ("", False),
        ("import pytest; hub.broadcast('x')", False),
    ],
)
def test_a_process_that_sends_into_its_own_memory_alone_is_warned_of_at_its_exit(code: str, warned: bool) -> None:
    program = f"from ssehub import Hub; hub = Hub(); {code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.count(ALONE) == warned, done.stderr
