"""The example of the likes board, as it is run: two gunicorn workers on one Redis."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from ssehub import Hub, Message, RedisLog
from tests.browser import Tab
from tests.redis_server import RedisServer
from tests.servers import ROOT, answers, children, free_port, process
from tests.streams import GUARD, Stream, until

FOLDER = ROOT / "examples" / "likes"
JSON = {"Content-Type": "application/json"}
SCORES, TEXTS = "#comments .score", "#comments .text"


def command(port: int, *more: str) -> tuple[str, ...]:
    """Return the command of the README, for a port of ours."""
    (line,) = (one for one in (FOLDER / "README.rst").read_text().splitlines() if "bin/gunicorn " in one)
    words = line.split()[1:]
    return (sys.executable, "-m", "gunicorn", "--chdir", str(FOLDER), "-b", f"127.0.0.1:{port}", *more, *words)


@contextlib.contextmanager
def serving(port: int, redis_url: str, name: str) -> Iterator[subprocess.Popen[bytes]]:
    with process(*command(port, "--log-level", "error"), REDIS_URL=redis_url, BOARD=name) as running:
        until(lambda: answers(port, "/comments"), "the board to answer")
        yield running


class Visitor:
    """Somebody with a cookie of his own."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        self.page = self.session.get(self.url, timeout=GUARD)

    def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        with self.session.request(method, f"{self.url}{path}", timeout=GUARD, **{"headers": JSON, **options}) as answer:
            return answer.status_code, answer.json()

    def add(self, content: str, **fields: str) -> str:
        status, comment = self.ask("POST", "/comments", json={"content": content, **fields})
        assert status == 201, comment
        return str(comment["id"])

    def like(self, id: str, method: str = "POST") -> Any:
        status, comment = self.ask(method, f"/comments/{id}/like")
        assert status == 200, comment
        return comment

    def list(self, limit: int = 100) -> list[Any]:
        status, answer = self.ask("GET", f"/comments?limit={limit}")
        assert status == 200, answer
        return list(answer["comments"])


@pytest.fixture(scope="module")
def shared(redis_server: RedisServer) -> Iterator[int]:
    """Give the port of a board that the tests share; each works with comments of its own."""
    port = free_port()
    with serving(port, redis_server.url, f"likes-{uuid.uuid4().hex}") as running:
        until(lambda: len(children(running)) == 2)
        yield port


@pytest.fixture
def visit(shared: int) -> Iterator[Callable[[], Visitor]]:
    """Give a function that makes visitors."""
    with contextlib.ExitStack() as stack:

        def make() -> Visitor:
            visitor = Visitor(shared)
            stack.callback(visitor.session.close)
            return visitor

        yield make


def test_a_comment_is_answered_with_what_the_list_and_the_stream_have(
    shared: int, visit: Callable[[], Visitor]
) -> None:
    stream = Stream(shared, "/events")
    stream.opened()
    ada = visit()
    status, comment = ada.ask("POST", "/comments", json={"content": " hello \n there ", "nickname": " Ada\n L. "})
    assert status == 201
    assert {**comment, "id": "", "created_at": 0} == {
        "id": "", "created_at": 0, "nickname": "Ada L.", "content": "hello \n there", "score": 0, "version": 0,
        "liked": False,
    }  # fmt: skip
    assert comment in ada.list()
    message = stream.message()
    assert message.event == "comment" and {**message.json(), "liked": False} == comment
    for fields in ({}, {"nickname": "  "}):
        ada.add("who am I", **fields)
        assert stream.message().json()["nickname"] == "anonymous"
    stream.close()


def test_likes_count_once_for_each_visitor_and_the_order_of_the_list_is_theirs(visit: Callable[[], Visitor]) -> None:
    ada, bob = visit(), visit()
    older, newer = ada.add("older"), ada.add("newer")

    def listed(visitor: Visitor) -> list[tuple[str, int, bool]]:
        return [(one["id"], one["score"], one["liked"]) for one in visitor.list() if one["id"] in (older, newer)]

    assert listed(ada) == [(newer, 0, False), (older, 0, False)]
    assert [ada.like(older)["score"] for _ in range(3)] == [1, 1, 1]
    assert bob.like(older)["score"] == 2 and bob.like(newer)["score"] == 1
    assert listed(ada) == [(older, 2, True), (newer, 1, False)]
    assert listed(bob) == [(older, 2, True), (newer, 1, True)]
    unliked = [bob.like(older, "DELETE") for _ in range(3)]
    assert [(one["score"], one["liked"], one["version"]) for one in unliked] == [(1, False, 3)] * 3
    assert ada.like(newer, "DELETE")["score"] == 1  # he never liked it
    assert listed(ada) == [(newer, 1, False), (older, 1, True)]
    assert len(ada.list(limit=1)) == 1


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "error"),
    [
        ("POST", "/comments", {"json": {}}, 400, "content is missing"),
        ("POST", "/comments", {"json": {"content": " \n"}}, 400, "your comment is empty"),
        ("POST", "/comments", {"json": {"content": 7}}, 400, "content must be a text"),
        ("POST", "/comments", {"json": {"content": "x" * 501}}, 400, "content is longer than 500 characters"),
        ("POST", "/comments", {"json": {"content": "x", "nickname": "x" * 31}}, 400, "nickname is longer than 30"),
        ("POST", "/comments", {"data": r'{"content": "\ud800"}'}, 400, "surrogate"),
        ("POST", "/comments", {"data": "["}, 400, "not JSON"),
        ("POST", "/comments", {"data": "[" * 9000}, 400, "not JSON"),
        ("POST", "/comments", {"data": "[]"}, 400, "must be a JSON object"),
        ("POST", "/comments", {"data": "x" * 20_000}, 413, "exceeds"),
        ("POST", "/comments", {"data": {"content": "x"}, "headers": {}}, 415, "Content-Type must be application/json"),
        ("POST", "/comments/no-such/like", {}, 404, "no such comment"),
        ("DELETE", "/comments/no-such/like", {}, 404, "no such comment"),
        ("POST", "/comments/no-such/like", {"headers": {}}, 415, "Content-Type"),
        ("GET", "/comments/no-such/like", {}, 405, "not allowed"),
        ("GET", "/nothing", {}, 404, "not found"),
        *(("GET", f"/comments?limit={n}", {}, 400, "from 1 to 100") for n in ("0", "-1", "101", "x", "", "00001", "²")),
    ],
)
def test_what_is_wrong_is_answered_with_its_reason(
    visit: Callable[[], Visitor], method: str, path: str, options: dict[str, Any], status: int, error: str
) -> None:
    ada = visit()
    before = ada.list()
    got, answer = ada.ask(method, path, **options)
    assert got == status and error in answer["error"]
    assert ada.list() == before


def test_whoever_has_no_cookie_or_a_forged_one_cannot_like(shared: int, visit: Callable[[], Visitor]) -> None:
    ada = visit()
    id = ada.add("hello")
    (cookie,) = ada.session.cookies
    ada.like(id)
    assert {"HttpOnly", "SameSite"} <= set(cookie._rest)  # type: ignore[attr-defined]
    for value in ("", f"{cookie.value}x", "forged"):
        headers = {**JSON, "Cookie": f"{cookie.name}={value}"}
        answer = requests.delete(f"http://127.0.0.1:{shared}/comments/{id}/like", headers=headers, timeout=GUARD)
        assert answer.status_code == 403 and "cookie" in answer.json()["error"]
    assert next(one for one in ada.list() if one["id"] == id)["score"] == 1
    assert "127.0.0.1" not in ada.page.text + str(ada.list())


def test_fifty_visitors_at_once_are_fifty_likes_and_the_newest_version_tells_so(
    shared: int, visit: Callable[[], Visitor]
) -> None:
    id = visit().add("like me")
    stream = Stream(shared, "/events")
    stream.opened()
    together = threading.Barrier(50)

    def like_twice(_: int) -> None:
        visitor = Visitor(shared)
        together.wait(GUARD)
        visitor.like(id)
        visitor.like(id)
        visitor.session.close()

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(like_twice, range(50)))
    told = [stream.message().json() for _ in range(100)]
    assert {one["version"] for one in told} == set(range(1, 51))
    assert all(one["score"] == one["version"] and one["id"] == id for one in told)
    assert next(one for one in visit().list() if one["id"] == id)["score"] == 50
    stream.close()


def test_without_redis_it_says_what_is_missing_and_does_not_start() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": f"redis://:secret@127.0.0.1:{free_port()}/0"}
    ended = subprocess.run(
        command(free_port()), env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode != 0
    assert "the board needs a Redis, and does not reach it" in ended.stderr and "secret" not in ended.stderr


def test_when_redis_goes_away_it_says_so_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    redis_server, port = RedisServer(tmp_path), free_port()
    try:
        with serving(port, redis_server.url, "likes"):
            redis_server.kill()
            ada = requests.get(f"http://127.0.0.1:{port}/", timeout=30)
            assert ada.status_code == 503 and "try again" in ada.json()["error"]
            redis_server.start()
            until(lambda: answers(port, "/comments"))
    finally:
        redis_server.close()


def board(open_tab: Callable[[str], Tab], host: str, port: int) -> Tab:
    """Open the board; each host has cookies of its own, so it is another visitor."""
    tab = open_tab(f"http://{host}:{port}/")
    until(lambda: tab.text("#state") == "live")
    return tab


def post(tab: Tab, content: str, nickname: str = "") -> None:
    tab.fill("[name=content]", content)
    tab.fill("[name=nickname]", nickname)
    tab.click("form button")


def pressed(tab: Tab) -> list[str]:
    return list(tab.run("return [...document.querySelectorAll('.like')].map(e => e.getAttribute('aria-pressed'))"))


def test_two_browsers_see_each_other_and_miss_nothing_while_the_server_is_away(
    redis_server: RedisServer, open_tab: Callable[[str], Tab]
) -> None:
    name, first, second = f"likes-{uuid.uuid4().hex}", free_port(), free_port()
    with serving(second, redis_server.url, name):
        other = Visitor(second)
        with serving(first, redis_server.url, name):
            ada, bob = board(open_tab, "127.0.0.1", first), board(open_tab, "localhost", first)
            post(ada, "hello", "Ada")
            bob.wait_for(TEXTS, "hello")
            bob.wait_for(".nickname", "Ada")
            bob.click(".like")
            ada.wait_for(SCORES, "1")
            again = board(open_tab, "localhost", first)
            assert (pressed(ada), pressed(bob), pressed(again)) == (["false"], ["true"], ["true"])
            post(bob, "<img src=x onerror=alert(1)><script>alert(2)</script>", "<i>Bob</i>")
            for tab in (ada, bob, again):
                tab.wait_for(TEXTS, "hello", "<img src=x onerror=alert(1)><script>alert(2)</script>")
                tab.wait_for(".nickname", "Ada", "<i>Bob</i>")
                assert not tab.run("return document.querySelector('li img, li script, li i')")
            again.click(".like")
            for tab in (ada, bob):
                tab.wait_for(SCORES, "0", "0")
            until(lambda: pressed(bob) == ["false", "false"])  # his other tab has taken it back
        for tab in (ada, bob):
            until(lambda tab=tab: tab.text("#state") == "connecting")
        newest = other.add("while you were away")
        other.like(newest)
        other.like(other.list()[1]["id"])
        with serving(first, redis_server.url, name):
            for tab in (ada, bob):
                tab.wait_for(SCORES, "1", "1", "0")
                assert tab.texts(TEXTS)[0] == "while you were away"
                until(lambda tab=tab: tab.text("#state") == "live")
                assert not tab.was_reloaded
                asked = tab.run("return performance.getEntriesByType('resource').map(one => one.name).join(' ')")
                assert "comments?" not in asked  # it came through the stream
            ada.click(".like")
            bob.wait_for(SCORES, "2", "1", "0")
        other.session.close()


def test_what_happens_between_the_page_and_its_stream_is_not_lost(
    shared: int, visit: Callable[[], Visitor], open_tab: Callable[[str], Tab]
) -> None:
    ada, tab = visit(), open_tab("about:blank")
    tab.browser.execute_cdp_cmd("Network.enable", {})
    tab.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/events*"]})
    tab.browser.get(ada.url)
    ada.add("in between")
    assert "in between" not in tab.texts(TEXTS) and tab.text("#state") == "connecting"
    tab.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    tab.run("follow()")  # the browser would do so after three seconds
    until(lambda: "in between" in tab.texts(TEXTS))


def test_the_page_takes_only_what_is_news_and_fetches_the_list_anew_after_a_gap(
    redis_server: RedisServer, open_tab: Callable[[str], Tab], make_hub: Callable[..., Hub]
) -> None:
    name, port = f"likes-{uuid.uuid4().hex}", free_port()
    with serving(port, redis_server.url, name):
        ada, other = board(open_tab, "127.0.0.1", port), Visitor(port)
        id = other.add("first")
        before = other.list()[0]
        other.like(id)
        hub = make_hub(RedisLog(redis_server.url, name=name))
        hub.broadcast(Message.from_json(before, "comment"), zone="board")  # the other worker's message was late
        second = other.add("second")
        ada.wait_for(TEXTS, "first", "second")
        ada.wait_for(SCORES, "1", "0")
        with redis_server.client.pipeline() as pipe:  # an older dump is restored: one comment and the log are gone
            pipe.delete(f"{{{name}}}:log", f"{{{name}}}:board:comment:{second}")
            pipe.zrem(f"{{{name}}}:board:ranking", second)
            pipe.execute()
        other.add("third")
        ada.wait_for(TEXTS, "first", "third")
        assert not ada.was_reloaded
        other.session.close()


def test_the_board_can_have_its_picture_taken(
    redis_server: RedisServer, open_tab: Callable[[str], Tab], tmp_path: Path
) -> None:
    port, folder = free_port(), os.environ.get("SSEHUB_SCREENSHOTS", tmp_path)
    said = {
        "Ada": ("A stream is a list that has not ended yet.", 5),
        "Grace": ("Pulled the cable, put it back, and everything I had missed was there.", 3),
        "": ("Two tabs, two workers, one board. I like that.", 2),
        "Barbara": ("Liked it on the train, in a tunnel, and it counted once.", 1),
        "Edsger": ("No message is lost in silence.", 0),
    }
    with serving(port, redis_server.url, f"likes-{uuid.uuid4().hex}"):
        visitors = [Visitor(port) for _ in range(5)]
        for nickname, (content, likes) in said.items():
            id = visitors[0].add(content, nickname=nickname)
            for visitor in visitors[:likes]:
                visitor.like(id)
        tab = board(open_tab, "127.0.0.1", port)
        tab.click("li:nth-child(2) .like")
        tab.wait_for(SCORES, "5", "4", "2", "1", "0")
        tab.browser.set_window_size(1000, 1000)
        assert tab.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert tab.browser.save_screenshot(str(Path(folder) / "likes.png"))
        for visitor in visitors:
            visitor.session.close()
