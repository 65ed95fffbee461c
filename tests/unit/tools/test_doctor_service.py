"""JSON responses of hostile servers, which are read with limits."""

from __future__ import annotations

import contextlib
import gzip
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from ssehub.client.printable import printable
from ssehub.tools.doctor.service import PLAIN, Service, read_json
from ssehub.tools.doctor.target import Target
from tests.scripted import Exchange, Script, Server, bodies
from tests.streams import GUARD

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def read(url: str, longest: int = 1000, seconds: float = GUARD) -> Any:
    with requests.get(url, headers=PLAIN, stream=True, timeout=GUARD) as response:
        return read_json(response, longest, seconds)


def endless(piece: bytes, pause: float) -> Callable[[Exchange], None]:
    """Return a script that sends an endless response."""

    def script(exchange: Exchange) -> None:
        exchange.send(HEAD + b"\r\n[")
        while True:  # until the peer disconnects
            exchange.send(piece)
            time.sleep(pause)

    return script


def test_a_response_is_read_completely(scripted: Callable[..., Server]) -> None:
    chunks = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
    for answer in (chunks, HEAD + b"Content-Length: 5\r\n\r\n[1,2]", HEAD + b"\r\n[1,2]"):
        assert read(scripted(bodies(answer)).url) == [1, 2]


@pytest.mark.parametrize(
    ("script", "limits", "text"),
    [
        (endless(b"1," * 10_000, 0), {}, "longer than 1000 bytes"),
        (endless(b"1", 0.01), {"seconds": 0.2}, "takes longer than 0.2 s"),
        (bodies(HEAD + b"\r\n" + b"[" * 100_000), {"longest": 1 << 20}, "nested too deeply"),
        (bodies(HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b" " * (1 << 20))), {}, "is compressed"),
        (bodies(HEAD + b"\r\nno"), {}, "Expecting value"),
    ],
    ids=["long", "slow", "deep", "compressed", "no JSON"],
)
def test_an_invalid_or_endless_response_is_an_error(
    scripted: Callable[..., Server], script: Callable[[Exchange], None], limits: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        read(scripted(script).url, **limits)


def test_a_response_that_breaks_off_is_a_connection_error(scripted: Callable[..., Server]) -> None:
    with pytest.raises(requests.ConnectionError):
        read(scripted(bodies(HEAD + b"Content-Length: 5\r\n\r\n[1")).url)


def test_printed_text_contains_no_terminal_commands() -> None:
    assert printable("a\x1b[0m\x9d\x7f\u202e\u2066\u200f\n\t\u2028") == (
        "a\\u001b[0m\\u009d\\u007f\\u202e\\u2066\\u200f\\u000a\\u0009\\u2028"
    )
    assert printable("one\ntwo\tthree\r", lines=True) == "one\ntwo\tthree\\u000d"
    text = "ä \u2603 \U0001f600 \ud800"
    assert printable(text) == text


def heads(start: bytes, piece: bytes) -> Callable[[Exchange], None]:
    """Return a script that never ends the head of its answer."""

    def script(exchange: Exchange) -> None:
        exchange.send(start)
        while True:  # until the other side leaves
            exchange.send(piece)
            time.sleep(0.01)

    return script


@pytest.mark.parametrize(
    "script",
    [
        heads(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        heads(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        bodies(*[b"HTTP/1.1 200 OK\r\n"] * 2),
        bodies(*[b"HTTP/1.1 302 Go\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n"] * 2),
    ],
    ids=["interim", "drip", "half", "redirect"],
)
def test_a_head_that_has_no_end_is_given_up(scripted: Callable[..., Server], script: Script) -> None:
    server = scripted(script)
    service = Service(Target(f"{server.url}/events"))
    with ThreadPoolExecutor() as pool, contextlib.closing(server):
        asked, sent = pool.submit(service.ask, 0.3), pool.submit(service.send, "a", "x", 0.3)
        assert asked.result(GUARD).status is None and isinstance(asked.result().error, requests.RequestException)
        assert isinstance(sent.exception(GUARD), requests.RequestException)
