"""web-platform-tests' ``eventsource`` directory against the client, over real sockets, in four framings of the body."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ssehub import Backoff, Client, Message
from tests.scripted import Exchange, Server
from tests.servers import ROOT
from tests.streams import GUARD, until

CASES = [
    case for case in json.loads((ROOT / "tests" / "data" / "wpt_cases.json").read_text())["cases"] if case["applicable"]
]
FRAMINGS = ("length", "chunked", "close", "bytes")


class Impatient(Backoff):
    """Record each wait, and end it at once."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "waits", [])

    waits: list[float]

    def delay(self, failures: int, reconnection_time: float) -> float:
        self.waits.append(super().delay(failures, reconnection_time))
        return 0.01


def answer(exchange: Exchange, response: dict[str, Any], framing: str, patience: threading.Event) -> None:
    if "delay_ms" in response:
        patience.wait(response["delay_ms"] / 1000)
    pieces = [piece.encode("latin-1") for piece in [response["body"], *response.get("chunks", [])]]
    hold = response.get("end") == "hold"
    headers = [(name, value.replace("{url}", exchange.server.url)) for name, value in response["headers"]]
    size = len(b"".join(pieces))
    if framing == "length" and response["status"] != 204:
        headers.append(("Content-Length", str(size + hold)))
    elif framing in ("chunked", "bytes") and response["status"] != 204:
        headers.append(("Transfer-Encoding", "chunked"))
    lines = [f"HTTP/1.1 {response['status']} {response.get('reason', 'OK')}", *(f"{n}: {v}" for n, v in headers)]
    exchange.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
    if response["status"] == 204:
        return
    if framing == "bytes":
        pieces = [bytes([byte]) for byte in b"".join(pieces)]
    for piece in pieces:
        if framing in ("length", "close"):
            exchange.send(piece)
        elif piece:
            exchange.chunk(piece)
    if hold:
        exchange.hold()
    elif framing in ("chunked", "bytes"):
        exchange.send(b"0\r\n\r\n")


class Observation:
    """The behaviour of a client with the responses of a case."""

    def __init__(self, serve: Callable[..., Server], case: dict[str, Any], framing: str) -> None:
        self.expect = case["expect"]
        self.happened: list[str | Message] = []
        self.backoff = Impatient()
        self.failed = False
        self.patience, self.exited = threading.Event(), threading.Event()
        responses = case["responses"]

        def script(exchange: Exchange) -> None:
            answer(exchange, responses[min(exchange.number, len(responses)) - 1], framing, self.patience)

        self.server = serve(script)
        try:
            url = case.get("url", f"{self.server.url}/")
            self.client = Client(url, retry_status=(), backoff=self.backoff)
        except ValueError:
            self.failed = True
            return
        self.client.on_connection(lambda: self.happened.append("open"))
        self.client.on_disconnect(lambda error: self.happened.append("disconnect"))
        self.client.on_event(self.happened.append)
        self.client.on_exit(self.exited.set)
        if case.get("action") == "close_on_open":
            self.client.on_connection(self.client.stop)
        self.client.start()
        if case.get("action", "").startswith("close_after_ms"):
            until(lambda: self.server.requests)
            self.client.stop()
        ends = self.expect.get("failed") or self.expect.get("closed")
        until(self.exited.is_set if ends else self.has_enough)
        self.failed = self.exited.is_set()
        assert self.client.stop(GUARD)
        self.patience.set()

    @property
    def messages(self) -> list[Message]:
        return [one for one in self.happened if isinstance(one, Message)]

    def has_enough(self) -> bool:
        wanted = max([0, *(request["n"] for request in self.expect.get("requests", ()))])
        if "reconnect_delay_ms" in self.expect and not self.backoff.waits:
            return False
        return len(self.messages) >= len(self.expect["events"]) and len(self.server.requests) >= wanted


def check(seen: Observation) -> None:
    expect = seen.expect
    wanted = expect.get("events", [])
    if not wanted:
        assert seen.messages == []
    for message, one in zip(seen.messages, wanted, strict=False):
        got = {"type": message.event, "data": message.data, "last_event_id": message.id}
        assert got.items() >= one.items()
    assert len(seen.messages) >= len(wanted)
    requests = seen.server.requests
    assert len(requests) <= expect.get("max_requests", len(requests))
    assert len(requests) >= expect.get("min_requests", 0)
    for one in expect.get("requests", ()):
        headers = requests[one["n"] - 1].headers
        assert headers.items() >= one.get("headers", {}).items()
        assert not headers.keys() & set(one.get("absent", ()))
    if expect.get("failed"):
        assert seen.failed
    if expect.get("opened"):
        assert "open" in seen.happened
    if expect.get("not_opened"):
        assert "open" not in seen.happened
    if "reconnect_delay_ms" in expect:
        least, most = expect["reconnect_delay_ms"]
        assert least <= seen.backoff.waits[0] * 1000 <= most
    if expect.get("error_between"):
        first, second = (seen.happened.index(message) for message in seen.messages[:2])
        assert "disconnect" in seen.happened[first:second]


def test_the_table_is_complete() -> None:
    assert len(CASES) == 71
    known = {"events", "failed", "requests", "max_requests", "opened", "not_opened", "reconnect_delay_ms", "closed"}
    known |= {"min_requests", "error_between", "observe_ms"}
    assert {key for case in CASES for key in case["expect"]} <= known


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_web_platform_tests(scripted: Callable[..., Server], case: dict[str, Any], framing: str) -> None:
    check(Observation(scripted, case, framing))
