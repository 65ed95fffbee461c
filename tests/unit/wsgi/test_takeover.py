"""Takeover: the output of a server is checked, and given back if it is not a plain event stream."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ssehub import Hub
from ssehub.server.settings import HubSettings
from ssehub.wsgi.capacity import most_streams
from ssehub.wsgi.source import source_of
from ssehub.wsgi.takeover import NotTaken, Takeover, judge, why_not
from ssehub.wsgi.timers import Timers
from tests.followers import Follower
from tests.servers import connected

MakeHub = Callable[..., Hub]
PREAMBLE = b"event: ssehub.open\ndata: x\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize(
    ("written", "is_chunked"),
    [
        (HEAD + b"\r\n" + PREAMBLE, False),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(PREAMBLE), True),
        (HEAD + b"transfer-encoding:Chunked\r\n\r\n" + chunk(PREAMBLE[:5]) + chunk(PREAMBLE[5:]), True),
        (
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"00" + chunk(PREAMBLE).replace(b"\r\n", b" ;x=y\r\n", 1),
            True,
        ),
        (HEAD.replace(b"1.1", b"1.0") + b"Content-Encoding: identity\r\n\r\n" + PREAMBLE, False),
    ],
)
def test_a_plain_event_stream_is_taken_over(written: bytes, is_chunked: bool) -> None:
    head = judge(written, PREAMBLE)
    assert head.is_chunked == is_chunked
    assert head.data == written.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)


def test_the_head_closes_the_connection_with_the_stream() -> None:
    written = HEAD + b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nX-Other: connection\r\n\r\n" + PREAMBLE
    assert judge(written, PREAMBLE).data == HEAD + b"X-Other: connection\r\nConnection: close\r\n\r\n" + PREAMBLE


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (b"", "not written"),
        (HEAD, "not plain HTTP/1"),
        (b"\x17\x03\x03\x01\x02 ciphertext\r\n\r\n" + PREAMBLE, "not plain HTTP/1"),
        (HEAD.replace(b"200 OK", b"206 Partial Content") + b"\r\n" + PREAMBLE, "status 200"),
        (HEAD.replace(b"HTTP/1.1", b"HTTP/2") + b"\r\n" + PREAMBLE, "not plain HTTP/1"),
        (HEAD.replace(b"event-stream", b"html") + b"\r\n" + PREAMBLE, "content type"),
        (HEAD + b"Content-Type: text/html\r\n\r\n" + PREAMBLE, "content type"),
        (HEAD + b"Content-Encoding: gzip\r\n\r\n" + b"\x1f\x8b", "compresses"),
        (HEAD + b"Content-Length: 28\r\n\r\n" + PREAMBLE, "length"),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunk(PREAMBLE), "transfer encoding"),
        (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(PREAMBLE), "transfer"),
        (HEAD + b"\r\n" + PREAMBLE.upper(), "changes the body"),
        (HEAD + b"\r\n" + PREAMBLE + b"more", "changes the body"),
        (HEAD + b"\r\n", "changes the body"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(PREAMBLE)[:-1], "changes the body"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(PREAMBLE) + b"0\r\n\r\n", "changes the body"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"x\r\n", "changes the body"),
    ],
)
def test_any_other_response_is_given_back(written: bytes, why: str) -> None:
    with pytest.raises(NotTaken, match=why):
        judge(written, PREAMBLE)


@pytest.mark.parametrize(
    ("environ", "number", "is_tls", "why"),
    [
        ({}, None, False, "does not show"),
        ({"SERVER_PROTOCOL": "HTTP/2.0"}, 5, False, "HTTP/2"),
        ({"HTTP_VERSION": "2"}, 5, False, "HTTP/2"),
        ({}, 5, True, "TLS"),
    ],
)
def test_some_requests_are_never_taken_over(
    environ: dict[str, Any], number: int | None, is_tls: bool, why: str
) -> None:
    assert why in (why_not(environ, number, is_tls) or "")
    assert why_not({"SERVER_PROTOCOL": "HTTP/1.1"}, 5, False) is None


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield the sockets of a server and of its client."""
    with connected() as both:
        yield both


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_a_client_notices_no_difference_after_giving_back(
    ends: tuple[socket.socket, socket.socket], timeout: float | None
) -> None:
    server, client = ends
    server.settimeout(timeout)  # with a timeout, the descriptor is non-blocking
    before = set(os.listdir("/proc/self/fd"))
    takeover = Takeover(server.fileno())
    server.sendall(b"a head, and ")
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(100)
    with pytest.raises(NotTaken):
        takeover.judge(PREAMBLE)
    server.sendall(b"the rest")
    takeover.give_back()
    server.sendall(b", and more")
    client.setblocking(True)
    received = b""
    while len(received) < 30:
        received += client.recv(100)
    assert received == b"a head, and the rest, and more"
    client.sendall(b"hello")
    assert server.recv(100) == b"hello" and set(os.listdir("/proc/self/fd")) == before


def test_after_a_takeover_the_servers_output_is_discarded_and_it_sees_an_end(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    server, client = ends
    takeover = Takeover(server.fileno())
    server.sendall(HEAD + b"\r\n" + PREAMBLE)
    head = takeover.judge(PREAMBLE)
    taken = takeover.keep()
    server.sendall(b"0\r\n\r\n")
    takeover.release()
    assert server.recv(100) == b""
    server.close()
    taken.send(head.data)
    taken.close()
    received = b""
    while data := client.recv(1000):
        received += data
    assert received == head.data


@contextmanager
def few_descriptors(more: int) -> Iterator[None]:
    """Limit the number of further descriptors in this context."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + more, limits[1]))
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        for number in held[len(held) - more :] if more else ():
            os.close(number)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for number in held[: len(held) - more]:
            os.close(number)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_without_free_descriptors_nothing_is_changed(ends: tuple[socket.socket, socket.socket], left: int) -> None:
    server, client = ends
    with few_descriptors(left), pytest.raises(OSError):
        Takeover(server.fileno())
    server.sendall(b"x")
    assert client.recv(1) == b"x"


@pytest.mark.parametrize(
    ("multithread", "text"),
    [
        (True, "streams stay on the server's threads: HTTP/2: all streams of"),
        (False, "a stream uses the server's only thread (wsgi.multithread is"),
    ],
)
def test_the_reason_why_a_stream_stays_is_counted_and_logged_once(
    make_hub: MakeHub, caplog: pytest.LogCaptureFixture, multithread: bool, text: str
) -> None:
    hub = make_hub(detach=True)
    near, far = socket.socketpair()
    with near, far:
        for _ in range(2):
            environ = {"SERVER_PROTOCOL": "HTTP/2", "gunicorn.socket": near, "wsgi.multithread": multithread}
            body: Any = hub.connect(environ).response
            next(body)
            body.close()
    assert list(hub.stats()["not_taken"].values()) == [2]
    assert [record.message[: len(text)] for record in caplog.records] == [text]


def test_streams_without_http_log_nothing(make_hub: MakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub = make_hub()
    follower = Follower(hub)
    hub.close()
    follower.join()
    assert hub.stats()["not_taken"] == {} and not caplog.records


@pytest.mark.parametrize(
    ("multithread", "detach", "leaves"),
    [(False, None, True), (True, None, False), (True, True, True), (False, False, False)],
)
def test_a_stream_releases_its_thread_if_it_is_the_servers_only_one(
    multithread: bool, detach: bool | None, leaves: bool
) -> None:
    near, far = socket.socketpair()
    with near, far:
        environ = {"gunicorn.socket": near, "wsgi.multithread": multithread}
        assert source_of(environ, detach).detaches == leaves


def test_the_default_limit_reserves_descriptors_for_other_uses() -> None:
    may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    one, two = (most_streams(HubSettings(), each) for each in (1, 2))
    assert one <= may_open - 64 and two <= one / 2


def test_a_timer_fires_once_and_not_before_its_time() -> None:
    timers: Timers[str] = Timers(0.5, 100.0)
    timers.set("a", 101.2)
    timers.set("b", 102.0)
    timers.set("b", 101.0)
    timers.set("c", 101.0)
    timers.cancel("c")
    assert timers.expired(101.0) == []
    assert sorted(timers.expired(102.0)) == ["a", "b"] and timers.expired(200.0) == []
    timers.set("late", 50.0)
    assert timers.expired(200.5) == ["late"]
