"""Stopping a client: in every phase, from any thread, without leftovers."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
from collections.abc import Callable

import pytest
import requests
from requests.adapters import HTTPAdapter

from ssehub import Backoff, Client
from tests.phases import PHASES, in_phase
from tests.scripted import CERTIFICATE, STREAM, Exchange, Server, held
from tests.servers import free_port
from tests.streams import GUARD, until

Serve = Callable[..., Server]


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))


class OwnAdapter(HTTPAdapter):
    """An adapter of the user's, which uses urllib3 as requests does."""


def with_own_adapter() -> requests.Session:
    session = requests.Session()
    session.mount("http://", OwnAdapter())
    session.mount("https://", OwnAdapter())
    return session


@pytest.mark.parametrize(
    "session", [None, requests.Session, with_own_adapter], ids=["own session", "the user's", "the user's adapter"]
)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("phase", [*PHASES, "handshake"])
def test_stop_from_another_thread_ends_each_phase(
    scripted: Serve, trusted: None, phase: str, tls: bool, session: Callable[[], requests.Session] | None
) -> None:
    if phase == "handshake":
        server = scripted(lambda exchange: None, tls=True, handshake=False)
    else:
        server = scripted(PHASES[phase], tls=tls)
    with session() if session else contextlib.nullcontext() as mine:
        client = Client(f"{server.url}/", session=mine, timeout=(3600, 3600, 3600))
        errors: list[Exception] = []
        is_there = in_phase(phase, server, client)
        client.on_disconnect(lambda error: errors.append(error) if error else None)
        client.start()
        until(is_there, phase)
        assert client.stop(GUARD)
    assert client.error is None and errors == []
    assert not [thread for thread in threading.enumerate() if thread.name == "ssehub-client"]


def test_stop_ends_the_wait_for_headers_behind_a_socks_proxy(scripted: Serve) -> None:
    pytest.importorskip("socks")
    server = scripted(held())
    with socket.create_server(("127.0.0.1", 0)) as proxy, requests.Session() as session:
        session.proxies = {"http": f"socks5h://127.0.0.1:{proxy.getsockname()[1]}"}
        client = Client(server.url, session=session, timeout=(3600, 3600, 3600)).start()
        connected, _ = proxy.accept()
        with connected, socket.create_connection(("127.0.0.1", server.port)) as behind:
            connected.recv(100)  # which ways to log in (RFC 1928 3)
            connected.sendall(b"\5\0")
            connected.recv(100)  # where to connect to
            connected.sendall(b"\5\0\0\1" + bytes(6))
            behind.sendall(connected.recv(65536))
            until(lambda: server.requests)
            assert client.stop(GUARD) and client.error is None


@pytest.mark.parametrize("hook", ["on_connection", "on_event", "on_comment", "on_gap", "on_disconnect", "on_error"])
def test_stop_from_a_hook_ends_the_client(scripted: Serve, hook: str) -> None:
    def script(exchange: Exchange) -> None:
        if hook == "on_error":
            exchange.send(b"HTTP/1.1 503 No\r\n\r\n")
            return
        exchange.send(STREAM + b": c\n\nevent: ssehub.gap\ndata: {}\n\ndata: 1\n\ndata: 2\n\n")
        if hook != "on_disconnect":
            exchange.hold()

    server = scripted(script)
    client = Client(f"{server.url}/")
    seen: list[object] = []
    client.on_event(seen.append)
    client.on_exit(lambda: seen.append("exit"))
    getattr(client, hook)(lambda *args: client.stop(GUARD))
    client.run()
    data = [getattr(one, "data", one) for one in seen]
    assert data == {"on_event": ["1", "exit"], "on_disconnect": ["1", "2", "exit"]}.get(hook, ["exit"])
    assert len(server.requests) == 1


def test_stop_before_the_start_prevents_the_start(scripted: Serve) -> None:
    server = scripted(PHASES["body"])
    client = Client(f"{server.url}/")
    client.stop()
    client.run()
    assert client.stop(0) and list(client) == [] and server.accepted == 0
    client.start()
    assert client.stop(GUARD)


def test_no_hook_is_called_after_a_stop_that_waited(scripted: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(STREAM)
        with contextlib.suppress(OSError):
            while True:
                exchange.send(b"data: x\n\n" * 1000)

    for _ in range(20):
        client = Client(f"{scripted(script).url}/")
        calls: list[object] = []
        client.on_event(calls.append)
        client.on_disconnect(calls.append)
        client.on_exit(lambda calls=calls: calls.append("exit"))
        client.start()
        until(lambda calls=calls: calls)
        assert client.stop(GUARD)
        count = len(calls)
        assert calls[-1] == "exit" and calls.count("exit") == 1
        threading.Event().wait(0.001)
        assert len(calls) == count


def test_leaving_the_loop_closes_the_connection_and_another_loop_continues(scripted: Serve) -> None:
    stream = STREAM + b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n"
    server = scripted(held(stream))
    client = Client(f"{server.url}/")
    for message in client:
        assert message.data == "a"
        break
    until(lambda: not server._open)
    assert client.last_event_id == "1"
    for message in client:
        assert message.data == "a"
        break
    assert server.requests[1].headers["last-event-id"] == "1"


def _descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_no_resources_are_left_after_two_hundred_cycles(scripted: Serve, trusted: None, tls: bool) -> None:
    server = scripted(PHASES["body"], tls=tls)
    before = 0
    for n in range(201):
        client = Client(f"{server.url}/")
        got = threading.Event()
        client.on_event(lambda message, got=got: got.set())
        with client:
            client.start()
            if n % 2:
                assert got.wait(GUARD)
        until(lambda: not server._open)
        if n == 0:
            before = _descriptors()
    assert _descriptors() <= before
    assert not [thread for thread in threading.enumerate() if thread.name == "ssehub-client"]


def test_a_refused_connection_is_tried_again_until_stop() -> None:
    errors: list[tuple[Exception, float | None]] = []
    client = Client(f"http://127.0.0.1:{free_port()}/", backoff=Backoff(initial=0.001, maximum=0.01), reconnect_delay=0)
    client.on_error(lambda error, delay: errors.append((error, delay)))
    client.start()
    until(lambda: len(errors) >= 5)
    assert client.stop(GUARD)
    assert all(isinstance(error, requests.ConnectionError) and delay is not None for error, delay in errors)
