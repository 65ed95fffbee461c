"""Streams behind middlewares: they are given back to the server if the middleware has changed them."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest

from tests.matrix import KINDS, Raw, Served, chunks_of, request, served
from tests.streams import until

REASONS = {"gzip": "a middleware compresses the stream", "upper": "a middleware changes the body"}


def text_of(middleware: str, chunks: list[bytes]) -> list[bytes]:
    """Return the decoded chunks, without values that differ each time."""
    if middleware == "gzip":
        unpacker = zlib.decompressobj(wbits=31)
        chunks = [unpacker.decompress(chunk) for chunk in chunks]
    for pattern in (
        rb'(?<="session_id": ")\w{16}',
        rb"(?<=retry: )[234]\d{3}",
        rb"(?<=id: )\w+\.\d+\.\w{8}",
    ):
        chunks = [re.sub(pattern, b"...", chunk, flags=re.I) for chunk in chunks]
    return chunks


def complete(middleware: str, data: bytes) -> list[bytes]:
    """Return the texts of the chunks so far, of a response that has not ended."""
    head, _, body = data.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return text_of(middleware, [body])
    found = []
    while (size := body.partition(b"\r\n")[0]) and len(body) >= len(size) + 4 + int(size, 16):
        found.append(body[len(size) + 2 :][: int(size, 16)])
        body = body[len(size) + 4 + int(size, 16) :]
    return text_of(middleware, found)


def exchanged(here: Served, middleware: str, hub: str) -> tuple[list[bytes], list[bytes]]:
    """Return the head and the decoded chunks."""
    client = Raw(here.port, request(f"/events?client_id=ada&hub={hub}"))

    def has(text: bytes) -> None:
        client.read_until(lambda data: text in b"".join(complete(middleware, data)).lower())

    has(b"ssehub.open")
    for text in ("one", "two", "x" * 500):
        here.send(text, hub)
        has(f"data: {text}\n\n".encode())
    here.end("ada", hub)
    head, _, body = client.response().partition(b"\r\n\r\n")
    client.close()
    chunks = list(chunks_of(body)) if b"transfer-encoding: chunked" in head.lower() else [body]
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"date:")]
    return lines, text_of(middleware, chunks)


@pytest.mark.parametrize("middleware", REASONS)
@pytest.mark.parametrize("kind", [kind for kind, what in KINDS.items() if what.shows])
def test_a_middleware_that_changes_the_stream_works_as_usual(kind: str, middleware: str, tmp_path: Path) -> None:
    with served(kind, tmp_path, MIDDLEWARE=middleware) as here:
        left_alone, given_back = (exchanged(here, middleware, hub) for hub in ("False", "None"))
        assert given_back == left_alone
        assert b"".join(given_back[1]).lower().count(b"data: ") == 4

        # Heartbeats arrive, and a disconnected client is noticed without them.
        beating = Raw(here.port, request("/events?client_id=ada&hub=beats"))
        beating.read_until(lambda data: b"".join(complete(middleware, data)).count(b"\n:") > 2)
        here.end("ada", "beats")
        beating.close()
        leaving = [Raw(here.port, request("/events")) for _ in range(1 if KINDS[kind].is_single else 3)]
        for client in leaving:
            client.read_until(lambda data: b"ssehub.open" in b"".join(complete(middleware, data)).lower())
        before = here.stats()
        assert (before["connections"], before["taken_over"], before["detached"]) == (len(leaving), 0, 0)
        for client in leaving:
            client.close()
        here.nobody()
        assert here.stats()["hang_ups"] == before["hang_ups"] + len(leaving)

        ((reason, count),) = here.stats()["not_taken"].items()
        assert REASONS[middleware] in reason and count == 1 + len(leaving)
        until(lambda: here.log.read_text().count(reason) == 2, "the log to say so, once for each hub")


@pytest.mark.parametrize("middleware", ["headers", "body"])
@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent", "werkzeug", "cheroot"])
def test_a_middleware_that_keeps_the_bytes_does_not_prevent_a_takeover(
    kind: str, middleware: str, tmp_path: Path
) -> None:
    with served(kind, tmp_path, MIDDLEWARE=middleware) as here:
        client = Raw(here.port, request("/events?client_id=ada"))
        client.read_until(lambda data: b"ssehub.open" in data)
        assert (b"X-Wrapped: yes\r\n" in client.data) == (middleware == "headers")
        numbers = here.stats()
        assert (numbers["taken_over"], numbers["not_taken"]) == (1, {})
        here.send("hello")
        client.read_until(lambda data: b"data: hello\n\n" in data)
        here.end("ada")
        assert re.search(rb"retry: [234]\d{3}\n\n\r\n0\r\n\r\n$", client.rest())
