"""Arrivals: clients that never finish a request hold no thread of ``ssehub serve`` for long."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from ssehub.cli.arrivals import Arrivals
from tests.integration.test_cli import run, serving
from tests.streams import GUARD, Stream, call, until

BEGUN = [
    b"",
    b"GET /events HT",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-More: ",
    b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
]


def rest(sock: socket.socket) -> bytes:
    with sock, sock.makefile("rb") as file:
        return file.read()


@pytest.fixture
def pairs() -> Callable[[], tuple[socket.socket, socket.socket]]:
    """Give a function that makes connected sockets: the client's and the server's."""

    def make() -> tuple[socket.socket, socket.socket]:
        client, server = socket.socketpair()
        client.settimeout(GUARD)
        return client, server

    return make


def test_requests_that_are_never_whole_are_cut_and_streams_go_on() -> None:
    with serving("--request-timeout", "0.5", "--heartbeat", "0.1") as (_, port):
        stream = Stream(port, "/events")
        stream.opened()
        waiting = []
        for begun in BEGUN * 5:
            waiting.append(socket.create_connection(("127.0.0.1", port), GUARD))
            waiting[-1].sendall(begun)
        assert all(rest(sock).startswith(b"HTTP/1.1 408 ") for sock in waiting)
        assert call(port, "POST", "/send", {"data": "hello", "broadcast": "true"})[0] == 200
        assert stream.data(1) == ["hello"]
        stream.close()
    assert "positive" in run("serve", "--port", "0", "--request-timeout", "0").stderr


def test_a_request_that_comes_byte_by_byte_has_no_more_time() -> None:
    with serving("--request-timeout", "0.5") as (_, port), socket.create_connection(("127.0.0.1", port), GUARD) as sock:
        sock.settimeout(0.05)
        sock.sendall(b"GET / HTTP/1.1\r\nX: ")
        until(lambda: drip(sock))


def drip(sock: socket.socket) -> bool:
    """Send one more byte; True if the server has closed the connection."""
    try:
        sock.sendall(b"x")
        answer = sock.recv(100)
    except TimeoutError:
        return False
    except (BrokenPipeError, ConnectionResetError):
        return True
    assert not answer or answer.startswith(b"HTTP/1.1 408 ")
    return True


def test_what_comes_after_an_answered_request_holds_no_thread() -> None:
    with serving("--request-timeout", "0.5") as (_, port):
        with socket.create_connection(("127.0.0.1", port), GUARD) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nand more")
            answer = rest(sock)
        assert answer.startswith(b"HTTP/1.1 200 ") and b" 408 " not in answer


def test_of_too_many_requests_the_oldest_goes(pairs: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
    arrivals = Arrivals(lambda environ, start: [], most=2)
    clients, servers = zip(*(pairs() for _ in range(4)), strict=True)
    for server in servers:
        arrivals.begin(server)
    for client in clients[:2]:
        assert rest(client).startswith(b"HTTP/1.1 408 ")
    for one in servers[2:]:
        one.sendall(b"fine")
        arrivals.end(one)
    arrivals.enforce()
    assert [client.recv(10) for client in clients[2:]] == [b"fine"] * 2
    for sock in (*clients[2:], *servers):
        sock.close()
