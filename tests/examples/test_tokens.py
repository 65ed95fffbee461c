"""The example tokens: answers that outlive their request, on two workers."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ssehub import Client
from tests.example_apps import imported, served
from tests.streams import GUARD, Stream, call, until


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setenv("TOKENS_DB", str(tmp_path / "tokens.db"))
    with imported("tokens") as module:
        module.PAUSE = 0.001
        yield module


@pytest.fixture
def port(tokens: ModuleType, site: Callable[[Any], Any]) -> int:
    found: int = site(tokens.app).port
    return found


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


def ask(port: int, prompt: str = "x", key: str = "k") -> dict[str, Any]:
    body = json.dumps({"prompt": prompt, "key": key})
    status, answer = call(port, "POST", "/answers", body, **{"Content-Type": "application/json"})
    assert status == 201
    found: dict[str, Any] = answer
    return found


def start(port: int, prompt: str = "x", key: str = "k") -> str:
    return f"/answers/{ask(port, prompt, key)['answer']}"


def read(stream: Stream) -> tuple[str, dict[str, Any]]:
    """Read to the end. Return the answer, and how it has ended."""
    events = stream.rest()
    (end,) = [one.json() for one in events if one.event == "ssehub.end"]
    return "".join(one.data or "" for one in events if one.event == "message"), end


def test_an_answer_comes_whole_and_then_its_end(port: int) -> None:
    text, end = read(Stream(port, start(port, "a b")))
    assert text == 'You wrote "a b". I only repeat it: a b a b a b ' and end["reason"] == "done"


def test_a_failure_is_the_end_and_has_a_public_text(port: int) -> None:
    text, end = read(Stream(port, start(port, "now fail please")))
    assert text.startswith("You wrote") and end["reason"] == "error"
    assert end["text"] == "the model has run out of words"


def test_a_script_reads_an_answer_and_ends(port: int) -> None:
    messages = list(Client(f"http://127.0.0.1:{port}{start(port, 'a b')}"))
    assert "".join(one.data or "" for one in messages).endswith("a b a b a b ")


def test_a_prompt_or_a_key_that_is_none_is_a_400(port: int) -> None:
    for body in ('{"prompt": "", "key": "k"}', '{"prompt": 1}', '{"prompt": "x"}', "{}", "[]", "no JSON"):
        assert call(port, "POST", "/answers", body, **{"Content-Type": "application/json"})[0] == 400, body


def test_a_question_that_is_asked_again_is_answered_once(tokens: ModuleType, port: int) -> None:
    pages = Pages(tokens)
    first, again = ask(port), ask(port)
    assert first["answer"] == again["answer"] and first["pid"] == os.getpid() and again["pid"] is None
    pages.allow(100)
    text, _ = read(Stream(port, f"/answers/{again['answer']}"))
    assert text == "".join(f"{number} " for number in range(100))


def test_a_reload_begins_at_the_first_token_and_a_reconnection_goes_on(tokens: ModuleType, port: int) -> None:
    pages = Pages(tokens)
    path = start(port)
    pages.allow(1)
    before = Stream(port, path)
    first = before.message()
    assert first.data == "0 " and first.id is not None
    before.close()
    after = Stream(port, path)
    assert after.data(1) == ["0 "]
    resumed = Stream(port, path, {"Last-Event-ID": first.id})
    pages.allow(99)
    rest = "".join(f"{number} " for number in range(1, 100))
    assert read(after)[0] == read(resumed)[0] == rest
    until(pages.closed.is_set)


def test_an_answer_that_is_stopped_stops_the_model_and_says_so(tokens: ModuleType, port: int) -> None:
    pages = Pages(tokens)
    path = start(port)
    pages.allow(1)
    stream = Stream(port, path)
    assert stream.data(1) == ["0 "]
    assert call(port, "DELETE", path)[0] == 204
    assert read(stream)[1]["reason"] == "stopped"
    pages.allow(1)
    assert pages.closed.wait(GUARD)
    assert call(port, "DELETE", path)[0] == 204


def test_two_answers_do_not_mix(port: int) -> None:
    paths = [start(port, word, word) for word in ("left", "right")]
    for path, word in zip(paths, ("left", "right"), strict=True):
        text, _ = read(Stream(port, path))
        assert text.count(word) == 4 and text.startswith("You wrote")


def test_if_the_worker_that_writes_is_killed_readers_at_both_workers_are_told(tmp_path: Path) -> None:
    with served("tokens", TOKENS_DB=str(tmp_path / "tokens.db")) as (port, _):
        answer = ask(port, "x " * 900)
        clients = [Client(f"http://127.0.0.1:{port}/answers/{answer['answer']}") for _ in range(8)]
        texts: list[list[str]] = [[] for _ in clients]
        ends: list[list[Any]] = [[] for _ in clients]
        for client, text, end in zip(clients, texts, ends, strict=True):
            client.on_event("message", lambda message, text=text: text.append(message.data))  # type: ignore[misc]
            client.on_event("ssehub.end", lambda message, end=end: end.append(message.json()["reason"]))  # type: ignore[misc]
            client.start()
        until(lambda: min(map(len, texts)) > 5, guard=30.0)
        os.kill(answer["pid"], signal.SIGKILL)
        until(lambda: ends == [["lost"]] * len(clients), "the readers to be told", 60.0)
        assert len({"".join(text) for text in texts}) == 1
        for client in clients:
            assert client.stop(GUARD) and client.error is None
