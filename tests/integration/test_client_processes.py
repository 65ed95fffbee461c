"""Clients in processes of their own: signals, gevent, the exit of the interpreter, and forks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.phases import PHASES
from tests.scripted import CERTIFICATE, STREAM, Exchange, Server
from tests.servers import ROOT
from tests.streams import GUARD, until

Serve = Callable[..., Server]


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
