"""The client against servers that misbehave."""

from __future__ import annotations

import contextlib
import gc
import gzip
import random
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from ssehub import Client, Message, StreamRefused, Timeout
from tests.scripted import NO_MORE, STREAM, Exchange, Server, bodies
from tests.streams import GUARD, until

Follow = Callable[..., Client]
CHUNKED = STREAM[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
GZIP = STREAM[:-2] + b"Content-Encoding: gzip\r\n\r\n"


def data(client: Client) -> list[str | None]:
    return [message.data for message in client]


def server_of(client: Client) -> Server:
    server: Server = client.server  # type: ignore[attr-defined]
    return server


def test_a_server_accepts_and_closes_without_a_response(follow: Follow) -> None:
    client = follow(lambda exchange: exchange.send(NO_MORE) if exchange.number > 5 else None)
    errors: list[Exception] = []
    client.on_error(lambda error, delay: errors.append(error))
    client.run()
    assert [type(error) for error in errors] == [requests.ConnectionError] * 5


def test_a_server_sends_half_an_event_and_hangs(follow: Follow) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.number == 1:
            exchange.send(STREAM + b"id: 1\ndata: a\n\nid: 2\ndata: half")
            exchange.hold()
        exchange.send(STREAM + b"data: b\n\n" if exchange.number == 2 else NO_MORE)

    client = follow(script, timeout=Timeout(idle=0.1))
    assert data(client) == ["a", "b"]
    assert server_of(client).requests[1].headers["last-event-id"] == "1"


def test_a_server_sends_single_bytes(follow: Follow) -> None:
    stream = "id: 1\r\nevent: größe\r\ndata: ☃\r\n: c\r\n\r\ndata\r\r".encode()

    def script(exchange: Exchange) -> None:
        if exchange.number > 1:
            exchange.send(NO_MORE)
            return
        for byte in STREAM + stream:
            exchange.send(bytes([byte]))
            threading.Event().wait(0.0005)

    assert list(follow(script)) == [Message("☃", "größe", id="1"), Message("", id="1")]


@pytest.mark.parametrize("length", ["3", "99", "0", "-1", "many", "9" * 40])
def test_a_server_sends_a_wrong_content_length(follow: Follow, length: str) -> None:
    lie = STREAM[:-2] + f"Content-Length: {length}\r\n\r\n".encode() + b"data: x\n\n"
    got = data(follow(bodies(lie, "data: y\n\n"), max_attempts=3))
    assert got in (["y"], ["x", "y"])
    if length in ("99", "many"):
        assert got == ["x", "y"]


def test_a_server_sends_two_wrong_content_lengths(follow: Follow) -> None:
    client = follow(bodies(STREAM[:-2] + b"Content-Length: 8, 9\r\n\r\n", "data: y\n\n"), max_attempts=3)
    with warnings.catch_warnings():
        # With urllib3, only the garbage collector closes this response.
        warnings.simplefilter("ignore", ResourceWarning)
        assert data(client) == ["y"]
        gc.collect()


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"zz\r\n",
        b"-5\r\ndata: n",
        b"5\r\ndata",
        b"ffffffffffffffffffff\r\nx",
        b"5;" + b"x" * 70000,
        b"\r\n\r\n",
        b"0\r\n",
    ],
)
def test_a_server_sends_invalid_chunks(follow: Follow, rest: bytes) -> None:
    client = follow(bodies(CHUNKED + b"9\r\ndata: x\n\n\r\n" + rest, "data: y\n\n"), max_attempts=3)
    assert data(client) == ["x", "y"]


@pytest.mark.parametrize(
    "head",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
        b"HTTP/9.9 200 OK\r\n\r\n",
    ],
)
def test_a_server_sends_a_response_that_is_not_http(follow: Follow, head: bytes) -> None:
    client = follow(bodies(head, "data: y\n\n"), retry_status=(200,), max_attempts=3)
    assert data(client) == ["y"]


def test_a_server_redirects_in_a_loop(follow: Follow) -> None:
    client = follow(bodies(*[b"HTTP/1.1 302 Go\r\nLocation: /\r\nConnection: close\r\n\r\n"] * 40, "data: x\n\n"))
    errors: list[Exception] = []
    client.on_error(lambda error, delay: errors.append(error))
    assert data(client) == ["x"]
    assert [type(error) for error in errors] == [requests.TooManyRedirects]


@pytest.mark.parametrize("location", [b"", b"Location: \r\n", b"Location: ftp://example.not/\r\n"])
def test_it_redirects_to_nowhere(follow: Follow, location: bytes) -> None:
    client = follow(bodies(*[b"HTTP/1.1 302 Go\r\n" + location + b"Content-Length: 0\r\n\r\n"] * 2), max_attempts=2)
    with pytest.raises((StreamRefused, requests.RequestException)):
        client.run()


def test_events_of_five_megabytes_in_pieces_of_a_kibibyte(follow: Follow) -> None:
    size = 5 << 20

    def script(exchange: Exchange) -> None:
        if exchange.number > 1:
            exchange.send(NO_MORE)
            return
        exchange.send(CHUNKED)
        stream = b"data: " + b"x" * size + b"\n\ndata: end\n\n"
        for start in range(0, len(stream), 1024):
            exchange.chunk(stream[start : start + 1024])
        exchange.send(b"0\r\n\r\n")

    assert [len(text or "") for text in data(follow(script))] == [size, 3]


def test_garbage_instead_of_utf_8(follow: Follow) -> None:
    stream = STREAM + b"data: a\xff\xfe\xc3\n\nevent: \xf0\x9f\ndata: \xed\xa0\x80\n\nid: \xff\ndata: c\n\n"
    client = follow(bodies(stream))
    assert list(client) == [
        Message("a\ufffd\ufffd\ufffd", id=""),
        Message("\ufffd\ufffd\ufffd", "\ufffd", id=""),
        Message("c", id="\ufffd"),
    ]
    assert server_of(client).requests[1].headers["last-event-id"].encode("latin-1").decode() == "\ufffd"


@pytest.mark.parametrize("seed", range(20))
def test_random_data_does_not_end_the_client(follow: Follow, seed: int) -> None:
    choice = random.Random(seed)
    pieces = [
        b"data:",
        b"id:",
        b"event:",
        b"retry:",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b":",
        b" ",
        b"0",
        b"\0",
        b"\xff",
        b"x",
    ]
    garbage = [b"".join(choice.choices(pieces, k=choice.randrange(400))) for _ in range(10)]
    # A reconnection time would delay the test.
    streams = [STREAM + one.replace(b"retry", b"Retry") for one in garbage]
    client = follow(bodies(*streams))
    client.run()
    assert client.error is None and len(server_of(client).requests) == 11


def test_a_reset_in_the_middle_of_an_event(follow: Follow) -> None:
    import socket
    import struct

    def script(exchange: Exchange) -> None:
        if exchange.number > 1:
            exchange.send(NO_MORE)
            return
        exchange.send(STREAM + b"data: x\n\ndata: ha")
        assert got.wait(GUARD)
        exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        exchange.connection.close()

    got = threading.Event()
    client = follow(script)
    client.on_event(lambda message: got.set())
    ends: list[Exception | None] = []
    client.on_disconnect(ends.append)
    assert data(client) == ["x"] and [type(end) for end in ends] == [requests.ConnectionError]


# Unrequested compression


def compressed(pieces: list[bytes], wbits: int) -> Iterator[bytes]:
    compress = zlib.compressobj(wbits=wbits)
    for piece in pieces:
        yield compress.compress(piece) + compress.flush(zlib.Z_SYNC_FLUSH)
    yield compress.flush()


@pytest.mark.parametrize(("encoding", "wbits"), [("gzip", 31), ("deflate", 15), ("deflate", -15), ("GZIP", 31)])
@pytest.mark.parametrize("chunked", [True, False])
def test_compressed_events_arrive_one_by_one_as_they_are_sent(
    follow: Follow, encoding: str, wbits: int, chunked: bool
) -> None:
    turn = threading.Semaphore()

    def script(exchange: Exchange) -> None:
        if exchange.number > 1:
            exchange.send(NO_MORE)
            return
        framing = "Transfer-Encoding: chunked\r\n" if chunked else ""
        exchange.send(STREAM[:-2] + f"{framing}Content-Encoding: {encoding}\r\n\r\n".encode())
        for piece in compressed([b"data: %d\n\n" % n for n in range(20)], wbits):
            assert turn.acquire(timeout=GUARD)  # after the previous one has arrived
            exchange.chunk(piece) if chunked else exchange.send(piece)
        exchange.send(b"0\r\n\r\n" if chunked else b"")

    client = follow(script)
    client.on_event(lambda message: turn.release())
    assert data(client) == [str(n) for n in range(20)]


def test_several_gzip_members_are_one_stream(follow: Follow) -> None:
    members = b"".join(gzip.compress(b"data: %d\n\n" % n) for n in range(3))
    assert data(follow(bodies(GZIP + members))) == ["0", "1", "2"]


@pytest.mark.parametrize(
    "body",
    [b"no gzip at all", gzip.compress(b"data: x\n\n" * 9)[:-12], gzip.compress(b"x")[:4]],
    ids=["none", "cut", "head"],
)
def test_invalid_gzip_data_only_ends_the_connection(follow: Follow, body: bytes) -> None:
    client = follow(bodies(GZIP + body, "data: y\n\n"), max_attempts=3)
    assert data(client)[-1] == "y"


def test_a_gzip_bomb_uses_no_memory_beyond_the_event_limit(follow: Follow) -> None:
    bomb = gzip.compress(b"data: " + b"\0" * (200 << 20), 1)
    client = follow(bodies(GZIP + bomb, "data: y\n\n"), max_attempts=3)
    errors: list[str] = []
    client.on_error(lambda error, delay: errors.append(type(error).__name__))
    assert data(client) == ["y"] and errors == ["ConnectionError"]


# Endless data


def test_a_redirect_with_an_endless_body_can_be_stopped(follow: Follow) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 302 Go\r\nLocation: /x\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                exchange.send(b"x" * 1024)
                threading.Event().wait(0.001)

    client = follow(script)
    client.start()
    until(lambda: server_of(client).requests)
    assert client.stop(GUARD)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_flood_can_be_stopped_and_never_becomes_ciphertext(
    scripted: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    from tests.scripted import CERTIFICATE

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))

    def script(exchange: Exchange) -> None:
        exchange.send(STREAM)
        with contextlib.suppress(OSError):
            while True:
                exchange.send(b"data: text\n\n" * 5000)

    server = scripted(script, tls=tls)
    for _ in range(10):
        client = Client(f"{server.url}/")
        seen: set[Any] = set()
        errors: list[Exception] = []
        client.on_error(lambda error, delay, errors=errors: errors.append(error))
        client.on_event(lambda message, seen=seen: seen.add(message.data))
        client.start()
        until(lambda seen=seen: seen)
        assert client.stop(GUARD) and seen == {"text"} and errors == []
