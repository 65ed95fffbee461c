"""Streams on every kind of server and in every way to serve them, each in its own process, over real sockets."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.matrix import KINDS, NO_SOCKET, THREADS, Raw, Served, chunks_of, request, served
from tests.streams import GUARD, Stream, call, until

STREAMS, MESSAGES = 10, 10
CASES = [(kind, detach, "wsgi") for kind in KINDS for detach in ("None", "True", "False")]
CASES += [(kind, "None", framework) for framework in ("flask", "django") for kind in ("sync", "gthread")]


@pytest.fixture(scope="module", params=CASES, ids=" ".join)
def here(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    kind, detach, framework = request.param
    with served(kind, tmp_path_factory.mktemp("served"), detach, framework) as server:
        yield server


def count(here: Served) -> int:
    """Return how many streams the server can hold at a time, ten at the most."""
    return 1 if here.is_busy else STREAMS


def test_first_bytes_come_at_once_and_each_message_once_and_in_order(here: Served) -> None:
    here.nobody()
    streams = here.open(count(here))
    for number in range(MESSAGES // 2):
        here.send(str(number))
    for stream in streams:
        assert stream.data(MESSAGES // 2) == [str(number) for number in range(MESSAGES // 2)]
    for number in range(MESSAGES // 2, MESSAGES):
        here.send(str(number))
        for stream in streams:
            assert stream.data(1) == [str(number)]
    here.send("end")
    for stream in streams:
        assert stream.data(1) == ["end"]
        stream.close()


def test_streams_are_served_in_the_way_that_is_meant(here: Served) -> None:
    here.nobody()
    streams = here.open(count(here))
    taken = 0 if here.way == "thread" else len(streams)
    numbers = here.stats()
    assert (numbers["connections"], numbers["taken_over"]) == (len(streams), taken)
    assert numbers["detached"] == (taken if here.way == "detached" else 0)
    reasons = numbers["not_taken"]
    assert list(reasons) == ([NO_SOCKET] if here.way == "thread" and here.detach != "False" else [])
    for stream in streams:
        stream.close()


def test_an_ordinary_request_is_answered_while_there_are_streams_more_than_threads_if_they_hold_none(
    here: Served,
) -> None:
    here.nobody()
    streams = here.open(2 * THREADS if here.way == "detached" else count(here))
    if not here.is_busy:
        for _ in range(5):
            assert call(here.port, "GET", "/other") == (200, b"other")
        assert call(here.port, "POST", "/send?data=hello") == (200, b"sent")
        for stream in streams:
            assert stream.data(1) == ["hello"]
    for stream in streams:
        stream.close()
    assert call(here.port, "GET", "/other") == (200, b"other")


def test_a_client_that_leaves_is_noticed_and_in_less_than_a_second_where_the_socket_is_shown(here: Served) -> None:
    here.nobody()
    times = []
    for leave in (Stream.close, Stream.reset) * 2:  # a machine that is busy may keep us waiting now and then
        streams = here.open(min(2, count(here)))
        before = here.stats()["connections"]
        assert before == len(streams)
        leave(streams[0])
        left = time.monotonic()
        until(lambda before=before: here.stats()["connections"] == before - 1, "the hang-up to be noticed")
        times.append(time.monotonic() - left)
        for stream in streams[1:]:
            here.send("still")
            assert stream.data(1) == ["still"]
            stream.close()
        here.nobody()
    assert not KINDS[here.kind].shows or (min(times[::2]) < 1 and min(times[1::2]) < 1)
    assert here.stats()["hang_ups"] >= len(times)


def test_a_client_that_half_closes_has_left(here: Served) -> None:
    here.nobody()
    client = Raw(here.port, request("/events"))
    client.read_until(lambda data: b"ssehub.open" in data)
    client.socket.shutdown(socket.SHUT_WR)
    if KINDS[here.kind].shows:
        here.nobody()
        client.rest()
    client.close()


def test_a_stream_on_a_connection_that_was_kept_for_ordinary_requests(here: Served) -> None:
    here.nobody()
    connection = http.client.HTTPConnection("127.0.0.1", here.port, timeout=GUARD)
    for _ in range(3):
        connection.request("GET", "/other")
        assert connection.getresponse().read() == b"other"
        if here.kind == "uwsgi":
            connection.close()  # it does, too, but does not say so
    stream = Stream(here.port, "/events?client_id=ada", connection=connection)
    stream.opened()
    here.send("hello")
    assert stream.data(1) == ["hello"]
    here.end("ada")
    assert [event.event for event in stream.rest()] == []
    assert 2000 <= (stream.decoder.reconnection_time or 0) <= 4000
    stream.close()


def test_head_is_answered_and_begins_no_stream(here: Served) -> None:
    here.nobody()
    before = here.stats()["opened"]
    client = Raw(here.port, request("/events", "1.0", "HEAD"))
    answer = client.rest().lower()
    client.close()
    assert b"content-type: text/event-stream; charset=utf-8" in answer
    assert answer.startswith(b"http/1.") and answer.partition(b"\r\n\r\n")[2] in (b"", b"0\r\n\r\n")
    assert (here.stats()["opened"], here.stats()["connections"]) == (before, 0)


@pytest.mark.parametrize("when", ["with the first", "once the stream has begun"])
def test_a_request_sent_ahead_on_the_same_connection_disturbs_nothing(here: Served, when: str) -> None:
    here.nobody()
    ahead = request("/other") * 20
    client = Raw(here.port, request("/events?client_id=ada") + (ahead if when == "with the first" else b""))
    client.read_until(lambda data: b"ssehub.open" in data)
    if when != "with the first":
        client.socket.sendall(ahead)
    for text in (b"one", b"two"):
        here.send(text.decode())
        client.read_until(lambda data, text=text: b"data: %b\n\n" % text in data)
    here.end("ada")
    if KINDS[here.kind].is_proxy or here.way == "thread":
        data = client.read_until(lambda data: re.search(rb"retry: [234]\d{3}\n\n", data) is not None)
    else:
        data = client.rest()
        assert re.search(rb"retry: [234]\d{3}\n\n(\r\n0\r\n\r\n)?$", data)
        assert (b"chunked" in data) == data.endswith(b"0\r\n\r\n")
        assert data.count(b"HTTP/1.") == 1
    client.close()


def test_what_a_client_has_not_read_is_not_lost_at_the_end_if_it_has_sent_a_request_ahead(here: Served) -> None:
    here.nobody()
    if here.way == "thread":
        pytest.skip("the server closes the connection, and some lose it")
    client = Raw(here.port, request("/events?client_id=ada"), buffer=4096)
    client.read_until(lambda data: b"ssehub.open" in data)
    client.socket.sendall(request("/other") * 20)
    here.send("x" * 40_000)
    here.end("ada")
    here.nobody()
    data = client.read_until(lambda data: re.search(rb"retry: [234]\d{3}\n\n", data[1000:]) is not None)
    assert data.count(b"x") >= 40_000
    client.close()


def recorded(here: Served, hub: str, version: str) -> tuple[list[bytes], list[bytes]]:
    """Return the lines of the head, and the body in its chunks, of a stream's response: byte for byte but for what is
    different each time: the names of sessions, cursors, random times, the date, and what is said of the connection.
    """
    client = Raw(here.port, request(f"/events?client_id=ada&hub={hub}", version))
    client.read_until(lambda data: re.search(rb"ssehub.open.*\n\n", data, re.S) is not None)
    for text in (b"one", b"two", b"x" * 500):
        here.send(text.decode(), hub)
        client.read_until(lambda data, text=text: b"data: %b\n\n" % text in data)
    here.end("ada", hub)
    data = client.response()
    if hub == here.detach != "False" and here.way != "thread" and not KINDS[here.kind].is_proxy:
        assert client.rest() == data  # the connection ends with the stream
    client.close()
    head, _, body = data.partition(b"\r\n\r\n")
    changing = (b"connection:", b"keep-alive:", b"date:")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(changing)]
    chunks = list(chunks_of(body)) if b"transfer-encoding: chunked" in head.lower() else [body]
    if KINDS[here.kind].is_proxy:
        chunks = [b"".join(chunks)]  # it is the proxy's choice where a chunk ends
    if not KINDS[here.kind].shows:  # its heart beats fast, and between the messages on a slow machine
        chunks = [re.sub(rb"(?m)^:\n\n", b"", chunk) for chunk in chunks if chunk != b":\n\n"]
    for pattern in (rb'(?<="session_id": ")\w{16}', rb"(?<=retry: )[234]\d{3}", rb"(?<=id: )\w+\.\d+\.\w{8}"):
        chunks = [re.sub(pattern, b"...", chunk) for chunk in chunks]
    return lines, chunks


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_the_bytes_are_those_that_the_server_would_have_written(here: Served, version: str) -> None:
    here.nobody()
    if here.framework == "django":
        pytest.skip("the site has one hub")
    head, body = recorded(here, here.detach, version)
    assert (head, body) == recorded(here, "False", version)
    assert b"".join(body).count(b"data: ") == 4


def test_two_hundred_streams_that_came_and_went_leave_nothing(here: Served) -> None:
    here.nobody()

    def come_and_go() -> None:
        streams = here.open(1 if here.is_busy else 20)
        for number, stream in enumerate(streams):
            stream.reset() if number % 2 else stream.close()
        here.nobody()

    leaves_nothing(here, come_and_go, 8)


def test_clients_that_leave_before_they_have_got_anything_leave_nothing(here: Served) -> None:
    here.nobody()

    def come_and_go() -> None:
        for _ in range(20):
            client = Raw(here.port, request("/events"))
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        until(lambda: call(here.port, "GET", "/other") == (200, b"other"))
        here.nobody()

    leaves_nothing(here, come_and_go, 1 if here.kind == "cheroot" else 8)  # it takes two seconds to find so many


def leaves_nothing(here: Served, come_and_go: Callable[[], None], times: int) -> None:
    """Have clients come and go, twenty at a time. What the server itself keeps, threads above all, is there after two
    rounds.
    """
    for _ in range(2):
        come_and_go()
    until(lambda: call(here.port, "GET", "/other") == (200, b"other"))
    descriptors, threads = here.descriptors(), here.threads()
    for _ in range(times):
        come_and_go()
    until(lambda: len(here.descriptors()) <= len(descriptors) + 1, "the descriptors to be closed")
    limit = max(len(threads), THREADS if here.kind in ("gthread", "nginx-1.0", "nginx-1.1") else 0) + 5
    until(lambda: len(here.threads()) <= limit, "the threads to be gone")
    numbers = here.stats()
    assert (numbers["connections"], numbers["taken_over"], numbers["detached"]) == (0, 0, 0)
