"""The example tokens: an answer from a generator, and one through a hub."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from ssehub import Client
from tests.example_apps import imported
from tests.streams import Stream, call, until


@pytest.fixture
def tokens() -> Iterator[ModuleType]:
    with imported("tokens") as module:
        module.PAUSE = 0.001
        yield module


@pytest.fixture
def port(tokens: ModuleType, site: Callable[[Any], Any]) -> Iterator[int]:
    yield site(tokens.app).port
    until(lambda: not [one for one in threading.enumerate() if one.name == "answer"])


class Pages:
    """Have the model wait for a test, token by token."""

    def __init__(self, tokens: ModuleType) -> None:
        self._turns = threading.Semaphore(0)
        self.closed = threading.Event()
        tokens.model = self._model

    def allow(self, count: int) -> None:
        self._turns.release(count)

    def _model(self, prompt: str) -> Iterator[str]:
        try:
            for number in range(100):
                assert self._turns.acquire(timeout=10)
                yield f"{number} "
        finally:
            self.closed.set()


def ask(port: int, prompt: str) -> list[tuple[str, str | None]]:
    client = Client(f"http://127.0.0.1:{port}/ask", method="POST", json={"prompt": prompt})
    client.on_disconnect(lambda error: client.stop())
    events = []
    for message in client:
        events.append((message.event, message.data))
        if message.event in ("end", "failed"):
            break
    return events


def start(port: int, prompt: str = "x") -> str:
    body = json.dumps({"prompt": prompt})
    status, answer = call(port, "POST", "/answers", body, **{"Content-Type": "application/json"})
    assert status == 201
    return f"/answers/{answer['answer']}"


def test_the_tokens_come_one_by_one_and_then_the_end(port: int) -> None:
    events = ask(port, "a b")
    assert {event for event, _ in events[:-1]} == {"token"} and events[-1] == ("end", "")
    assert "".join(data or "" for _, data in events) == 'You wrote "a b". I only repeat it: a b a b a b '


def test_a_failure_in_the_midst_is_the_last_event(port: int) -> None:
    events = ask(port, "now fail please")
    assert [event for event, _ in events] == ["token"] * (len(events) - 1) + ["failed"] and len(events) > 3
    assert events[-1][1] == "the model has run out of words"
    assert call(port, "GET", "/running") == (200, {"running": 0})


def test_when_the_client_leaves_the_model_stops(tokens: ModuleType, port: int) -> None:
    tokens.PAUSE = 0.02
    client = Client(f"http://127.0.0.1:{port}/ask", method="POST", json={"prompt": "x " * 900})
    for _ in client:
        assert call(port, "GET", "/running")[1] == {"running": 1}
        break
    until(lambda: call(port, "GET", "/running")[1] == {"running": 0})


def test_a_prompt_that_is_none_is_a_400(port: int) -> None:
    for path in ("/ask", "/answers"):
        for body in ('{"prompt": ""}', '{"prompt": 1}', "{}", "[]", "no JSON"):
            assert call(port, "POST", path, body, **{"Content-Type": "application/json"})[0] == 400, (path, body)


def test_through_a_hub_a_reload_begins_at_the_first_token_and_goes_on(tokens: ModuleType, port: int) -> None:
    pages = Pages(tokens)
    path = start(port)
    pages.allow(3)
    before = Stream(port, path)
    assert before.data(3) == ["0 ", "1 ", "2 "]
    before.close()
    pages.allow(2)
    after = Stream(port, path)
    assert after.data(5) == [f"{number} " for number in range(5)]
    pages.allow(100)
    messages = [after.message() for _ in range(96)]
    assert messages[-2].data == "99 " and messages[-1].event == "end"


def test_through_a_hub_a_client_that_was_cut_off_goes_on_where_it_was(tokens: ModuleType, port: int) -> None:
    pages = Pages(tokens)
    path = start(port)
    pages.allow(100)
    before = Stream(port, path)
    assert before.data(1) == ["0 "]
    place = before.message().id
    assert place is not None
    assert Stream(port, path, {"Last-Event-ID": place}).data(98) == [f"{number} " for number in range(2, 100)]


def test_an_answer_that_is_stopped_stops_the_model_and_says_so(tokens: ModuleType, port: int) -> None:
    pages = Pages(tokens)
    path = start(port)
    pages.allow(1)
    stream = Stream(port, path)
    assert stream.data(1) == ["0 "]
    assert call(port, "DELETE", path)[0] == 204
    assert stream.message().event == "failed"
    pages.allow(1)
    assert pages.closed.wait(10)
    assert call(port, "GET", path)[0] == 404
    assert call(port, "DELETE", path)[0] == 204


def test_two_answers_do_not_mix(port: int) -> None:
    paths = [start(port, word) for word in ("left", "right")]
    for path, word in zip(paths, ("left", "right"), strict=True):
        stream = Stream(port, path)
        text = ""
        while (message := stream.message()).event == "token":
            text += message.data or ""
        assert message.event == "end" and text.count(word) == 4 and text.startswith("You wrote")
