"""The limits of the client: how much memory and time a server can cost it."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from requests.adapters import HTTPAdapter

from ssehub import Client, StreamRefused, Timeout
from ssehub.client import publish
from tests.scripted import NO_MORE, STREAM, Exchange, Server, bodies, held
from tests.streams import GUARD, until

Follow = Callable[..., Client]
#: Maximum number of bytes of memory that a hostile response may use.
LITTLE = 16 << 20


def data(client: Client) -> list[str | None]:
    return [message.data for message in client]


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < LITTLE
    finally:
        tracemalloc.stop()


def bomb(layers: int) -> bytes:
    packed = b"\0" * (64 << 20)
    for _ in range(layers):
        packed = gzip.compress(packed)
    return packed


def endless(head: bytes, piece: bytes, pause: float = 0.0) -> Callable[[Exchange], None]:
    """Return a script that sends a piece repeatedly until the client disconnects."""

    def script(exchange: Exchange) -> None:
        exchange.send(head)
        with contextlib.suppress(OSError):
            while True:
                exchange.send(piece)
                threading.Event().wait(pause)

    return script


def answer(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} No", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


JSON = "Content-Type: application/json"


@pytest.mark.parametrize("layers", [1, 3])
def test_a_compressed_error_is_not_unpacked(follow: Follow, layers: int) -> None:
    packed = bomb(layers)
    head = answer(503, packed[:2000], JSON, f"Content-Encoding: {', '.join(['gzip'] * layers)}")
    client = follow(bodies(head, "data: x\n\n"))
    texts: list[str] = []
    client.on_error(lambda error, delay: texts.append(error.response.text))  # type: ignore[attr-defined]
    with little_memory():
        assert data(client) == ["x"]
    assert texts == [""]


@pytest.mark.parametrize("layers", [1, 3])
def test_a_compressed_stream_is_unpacked_piece_by_piece(follow: Follow, layers: int) -> None:
    packed = bomb(layers)
    head = STREAM[:-2] + f"Content-Encoding: {', '.join(['gzip'] * layers)}\r\n\r\n".encode()
    client = follow(bodies(head + packed, "data: x\n\n"), max_event_size=1 << 20)
    with little_memory():
        assert data(client) == ["x"]


def test_the_bodies_of_redirects_are_not_read(follow: Follow) -> None:
    head = b"HTTP/1.1 302 Go\r\nLocation: /\r\n\r\n"
    client = follow(endless(head, b"x" * 65536), max_attempts=1)
    with little_memory(), pytest.raises(requests.TooManyRedirects):
        client.run()


CHALLENGE = 'WWW-Authenticate: Digest realm="x", nonce="y", qop="auth"'


@pytest.mark.parametrize("packed", [False, True])
def test_the_body_of_a_challenge_is_read_a_little(follow: Follow, session: requests.Session, packed: bool) -> None:
    head = f"HTTP/1.1 401 No\r\n{CHALLENGE}\r\n".encode()
    refuse = endless(head + b"\r\n", b"x" * 65536)
    if packed:
        refuse = bodies(answer(401, bomb(1), CHALLENGE, "Content-Encoding: gzip"))

    def script(exchange: Exchange) -> None:
        if "authorization" in exchange.headers:
            exchange.send(STREAM + b"data: x\n\n" if len(exchange.server.requests) == 2 else NO_MORE)
        else:
            refuse(exchange)

    client = follow(script, session=session, auth=requests.auth.HTTPDigestAuth("user", "password"))
    with little_memory():
        assert data(client) == ["x"]


def test_a_challenge_that_drips_is_waited_for_a_moment(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssehub.client.cancellation._SOON", 0.2)
    head = f"HTTP/1.1 401 No\r\n{CHALLENGE}\r\nContent-Length: 1000\r\n\r\n".encode()
    client = follow(endless(head, b"x", 0.05), auth=requests.auth.HTTPDigestAuth("user", "password")).start()
    until(lambda: client.error)
    assert isinstance(client.error, StreamRefused)


def test_a_challenge_is_answered_on_its_connection_and_keeps_its_reason(follow: Follow) -> None:
    def script(exchange: Exchange) -> bool:
        exchange.send(answer(401, b'{"error": "who are you"}' + b" " * 10_000, CHALLENGE, JSON))
        return True

    client = follow(script, auth=requests.auth.HTTPDigestAuth("user", "password"))
    with pytest.raises(StreamRefused, match="who are you"):
        client.run()
    server: Server = client.server  # type: ignore[attr-defined]
    assert len(server.requests) == 2 and server.accepted == 1


def test_an_answer_that_is_no_redirect_though_it_has_a_place_keeps_its_body(follow: Follow) -> None:
    client = follow(bodies(STREAM[:-2] + b"Location: /elsewhere\r\n\r\ndata: x\n\n"))
    assert data(client) == ["x"]


@pytest.mark.parametrize("body", [b"[" * 1990, b'{"error":' * 300, b"\xff\xfe", b"{", b"", b"null", b'{"error": 5}'])
def test_an_error_response_that_cannot_be_read_does_not_end_the_client(follow: Follow, body: bytes) -> None:
    assert data(follow(bodies(answer(503, body, JSON), "data: x\n\n"))) == ["x"]


@pytest.mark.parametrize("kind", [b"text/plain", b"application/json", b"text/html"])
def test_only_a_little_of_an_endless_error_response_is_read(follow: Follow, kind: bytes) -> None:
    client = follow(endless(b"HTTP/1.1 404 No\r\nContent-Type: " + kind + b"\r\n\r\n", b"why " * 5000))
    with little_memory(), pytest.raises(StreamRefused) as caught:
        client.run()
    assert len(caught.value.response.content) == 4096 and len(str(caught.value)) < 700


def test_the_body_of_an_error_response_is_awaited_only_briefly(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssehub.client.responses._SOON", 0.2)
    head = b"HTTP/1.1 404 No\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n"
    for script in (held(head + b"half"), endless(head, b"x", 0.05)):
        client = follow(script).start()
        until(lambda client=client: client.error)
        assert isinstance(client.error, StreamRefused)


# Timeouts are limits for the total time


class OwnAdapter(HTTPAdapter):
    """An adapter of the user's, which uses urllib3 as requests does."""


@pytest.fixture(params=[HTTPAdapter, OwnAdapter])
def session(request: pytest.FixtureRequest) -> Iterator[requests.Session]:
    with requests.Session() as one:
        one.mount("http://", request.param())
        yield one


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 100 Continue\r\nX: ", b"HT"], ids=["header", "interim", "status"]
)
def test_a_head_that_drips_is_given_up(follow: Follow, session: requests.Session, head: bytes) -> None:
    script = endless(head, b"x", 0.02)
    client = follow(script, session=session, timeout=Timeout(headers=0.3), max_attempts=1).start()
    until(lambda: client.error)
    assert isinstance(client.error, requests.ReadTimeout)


def test_a_proxy_response_that_arrives_slowly_times_out(
    scripted: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = scripted(endless(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.02))
    monkeypatch.setenv("https_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    client = Client("https://stream.invalid/", timeout=Timeout(connect=0.3), max_attempts=1).start()
    until(lambda: client.error)
    assert isinstance(client.error, requests.RequestException)


@pytest.mark.parametrize("piece", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"])
def test_a_flood_of_interim_responses_is_given_up(follow: Follow, session: requests.Session, piece: bytes) -> None:
    client = follow(endless(b"", piece * 100), session=session, max_attempts=1)
    with pytest.raises(requests.ConnectionError, match="longer than"):
        client.run()


def test_a_head_of_megabytes_is_an_error(follow: Follow) -> None:
    lines = b"".join(b"Set-Cookie: a%d=%s\r\n" % (n, b"x" * 60_000) for n in range(90))
    client = follow(bodies(STREAM[:-2] + lines + b"\r\ndata: no\n\n", "data: x\n\n"))
    with little_memory():
        assert data(client) == ["x"]


@pytest.mark.parametrize("rest", [b"0\r\n", b"5;"], ids=["trailers", "extension"])
def test_framing_without_content_counts_as_silence(follow: Follow, rest: bytes) -> None:
    head = STREAM[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
    piece = b"X: y\r\n" if rest == b"0\r\n" else b"x"
    client = follow(endless(head + rest, piece, 0.02), timeout=Timeout(idle=0.3), max_attempts=1).start()
    until(lambda: client.error)
    assert isinstance(client.error, requests.ReadTimeout)


def test_the_number_of_cookies_is_limited(follow: Follow) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.number > 5:
            exchange.send(NO_MORE)
            return
        names = [f"Set-Cookie: c{exchange.number}_{n}={'x' * 50}" for n in range(90)]
        names.append(f"Set-Cookie: large={'x' * 60_000}")
        exchange.send(STREAM[:-2] + "\r\n".join(names).encode() + b"\r\n\r\ndata: x\n\n")

    client = follow(script)
    assert len(data(client)) == 5
    sent = client.server.requests[-1].headers["cookie"].split("; ")  # type: ignore[attr-defined]
    assert len(sent) == 100 and {one.split("_")[0] for one in sent} == {"c4", "c5"}


# Sending


def test_only_a_little_of_the_response_to_a_message_is_read(scripted: Callable[..., Server]) -> None:
    for head, piece in (
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", b"[" * 65536),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: application/json\r\n\r\n", bomb(1)),
        (b"HTTP/1.1 500 No\r\nContent-Type: application/json\r\n\r\n", b'{"error": "no"}' + b" " * 65536),
    ):
        server = scripted(endless(head, piece))
        with little_memory(), pytest.raises(requests.HTTPError):
            publish(f"{server.url}/send", {"data": "x"})
    fine = scripted(lambda exchange: exchange.send(answer(200, json.dumps({"id": "1"}).encode(), JSON)))
    assert publish(f"{fine.url}/send", {"data": "x"}) == {"id": "1"}


ACCEPTED = answer(200, b'{"id": "1"}', JSON)


def test_interim_answers_to_a_sent_message_are_skipped(scripted: Callable[..., Server]) -> None:
    server = scripted(bodies(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ACCEPTED))
    assert publish(f"{server.url}/send", {"data": "x"}) == {"id": "1"}


def test_a_flood_of_interim_answers_to_a_sent_message_is_given_up(
    scripted: Callable[..., Server], session: requests.Session
) -> None:
    server = scripted(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100))
    with pytest.raises(requests.ConnectionError, match="longer than"):
        publish(f"{server.url}/send", {"data": "x"}, session=session)


def test_half_a_head_is_no_answer_to_a_sent_message(scripted: Callable[..., Server]) -> None:
    with pytest.raises(requests.ConnectionError):
        publish(scripted(bodies(b"HTTP/1.1 200 OK\r\n")).url, {"data": "x"})


def test_an_answer_to_a_sent_message_that_drips_is_given_up(
    scripted: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("ssehub.client.publish"), "_TIMEOUT", Timeout(headers=0.3))
    server = scripted(endless(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.02))
    with ThreadPoolExecutor() as pool, contextlib.closing(server):
        sent = pool.submit(publish, f"{server.url}/send", {"data": "x"})
        assert isinstance(sent.exception(GUARD), requests.ReadTimeout)


def test_a_session_sends_many_messages_through_one_connection(scripted: Callable[..., Server]) -> None:
    def script(exchange: Exchange) -> bool:
        exchange.send(answer(200, b'{"id": "1"}', JSON))
        return True

    server = scripted(script)
    with requests.Session() as session:
        for _ in range(3):
            publish(f"{server.url}/send", {"data": "x"}, session=session)
    assert server.accepted == 1
