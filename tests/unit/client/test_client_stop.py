"""Stopping a client: in every phase, from any thread, without leftovers."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator

import pytest
import requests
from requests.adapters import HTTPAdapter

from ssehub import Backoff, Client
from tests.phases import PHASES, in_phase
from tests.scripted import CERTIFICATE, STREAM, Exchange, Server, held
from tests.servers import ROOT, free_port
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


@contextlib.contextmanager
def python(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "REQUESTS_CA_BUNDLE": str(CERTIFICATE)},
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("phase", ["headers", "body", "chunked body", "backoff"])
def test_ctrl_c_ends_a_client_in_the_main_thread(scripted: Serve, phase: str, tls: bool) -> None:
    server = scripted(PHASES[phase], tls=tls)
    code = """
        import sys, threading
        from ssehub import Client

        def say(line):  # in one write, because there are two threads
            sys.stdout.write(line + "\\n")
            sys.stdout.flush()

        client = Client(sys.argv[1], timeout=(3600, 3600, 3600))
        client.on_connection(lambda: say("open"))
        client.on_error(lambda error, delay: say("error"))
        client.on_exit(lambda: say("exit"))
        subscription = client.subscribe("never")
        threading.Thread(target=lambda: say(f"rest {list(subscription)}")).start()
        try:
            client.run()
        except KeyboardInterrupt:
            say("interrupted")
    """
    with python(code, f"{server.url}/") as running:
        assert running.stdout is not None
        if phase == "headers":
            until(lambda: server.requests)
        else:
            assert running.stdout.readline() == ("error\n" if phase == "backoff" else "open\n")
        running.send_signal(signal.SIGINT)
        assert running.wait(GUARD) == 0
        assert sorted(running.stdout.read().split("\n")) == ["", "exit", "interrupted", "rest []"]


def test_a_signal_handler_may_stop_the_client(scripted: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(STREAM)
        with contextlib.suppress(OSError):
            while True:
                exchange.send(b"data: x\n\n")

    code = """
        import signal, sys
        from ssehub import Client
        client = Client(sys.argv[1])
        signal.signal(signal.SIGTERM, lambda *_: client.stop(5))
        client.on_connection(lambda: print("open", flush=True))
        client.run()
        print("ended", flush=True)
    """
    with python(code, f"{scripted(script).url}/") as running:
        assert running.stdout is not None and running.stdout.readline() == "open\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(GUARD) == 0 and running.stdout.read() == "ended\n"


def test_under_gevent_it_follows_and_stops(scripted: Serve) -> None:
    server = scripted(PHASES["body"])
    code = """
        from gevent import monkey; monkey.patch_all()
        import sys, threading, time
        from ssehub import Client
        clients = [Client(sys.argv[1]) for _ in range(20)]
        subscriptions = [client.subscribe() for client in clients]
        for client in clients: client.start()
        print([subscription.get(5).data for subscription in subscriptions] == ["x"] * 20)
        print(all(client.stop(5) for client in clients), threading.active_count())
    """
    with python(code, f"{server.url}/") as running:
        out, errors = running.communicate(timeout=6 * GUARD)
        assert (out, errors) == ("True\nTrue 1\n", "")


def test_an_interpreter_ends_with_a_client_running(scripted: Serve) -> None:
    server = scripted(PHASES["body"])
    code = "import sys; from ssehub import Client; c = Client(sys.argv[1]).start(); c.subscribe().get(5)"
    with python(code, f"{server.url}/") as running:
        assert running.wait(GUARD) == 0


def test_a_refused_connection_is_tried_again_until_stop() -> None:
    errors: list[tuple[Exception, float | None]] = []
    client = Client(f"http://127.0.0.1:{free_port()}/", backoff=Backoff(initial=0.001, maximum=0.01), reconnect_delay=0)
    client.on_error(lambda error, delay: errors.append((error, delay)))
    client.start()
    until(lambda: len(errors) >= 5)
    assert client.stop(GUARD)
    assert all(isinstance(error, requests.ConnectionError) and delay is not None for error, delay in errors)


def test_a_forked_process_can_neither_stop_nor_follow_its_parents_client(scripted: Serve) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.target == "/go":
            go.set()
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            return
        exchange.send(STREAM + b"data: one\n\n")
        assert go.wait(6 * GUARD)
        exchange.send(b"data: two\n\n")
        exchange.hold()

    go = threading.Event()
    code = """
        import os, sys, requests
        from ssehub import Client
        client, other = Client(sys.argv[1]), Client(sys.argv[1])
        messages = client.subscribe()
        client.on_disconnect(lambda error: print("cut", flush=True))
        client.start()
        assert messages.get(10).data == "one"
        child = os.fork()
        if not child:
            loop = lambda: next(iter(client))
            for call in (messages.get, client.subscribe, client.start, client.restart, client.run, loop):
                try:
                    call()
                    print("done", call, flush=True)
                except RuntimeError as error:
                    assert str(os.getppid()) in str(error), error
            print(client.stop(10), str(os.getppid()) in repr(client), flush=True)
            with other:
                got = other.subscribe()
                other.start()
                print(got.get(10).data, flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        requests.get(sys.argv[1] + "go")
        print(messages.get(10).data, flush=True)
        os._exit(0)
    """
    with python(code, f"{scripted(script).url}/") as running:
        out, errors = running.communicate(timeout=6 * GUARD)
    assert (out.split("\n"), errors) == (["True True", "one", "two", ""], "")
