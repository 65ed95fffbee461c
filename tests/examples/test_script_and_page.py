"""The example of a script beside a page: the real script in a process, a user over HTTP, and a page in a browser."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.browser import Tab
from tests.servers import ROOT, answers, free_port, process
from tests.streams import GUARD, Stream, until

FOLDER = ROOT / "examples" / "script_and_page"
TOKEN = "a secret"


@contextlib.contextmanager
def serving(port: int) -> Iterator[None]:
    (line,) = (one for one in (FOLDER / "README.rst").read_text().splitlines() if "bin/gunicorn " in one)
    more = ("--chdir", str(FOLDER), "-b", f"127.0.0.1:{port}", "--log-level", "error", *line.split()[1:])
    with process(sys.executable, "-m", "gunicorn", *more, SECRET_KEY="a key", WORKER_TOKEN=TOKEN):
        until(lambda: answers(port, "/"), "the application to answer")
        yield


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    number = free_port()
    with serving(number):
        yield number


class User:
    """A visitor of the page, with a stream."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        with requests.get(self.url, timeout=GUARD) as page:
            (cookie,) = page.cookies
        self.headers = {"Cookie": f"{cookie.name}={cookie.value}"}
        self.stream = Stream(port, "/events", self.headers)
        self.stream.opened()

    def post(self, fields: Any) -> requests.Response:
        return requests.post(f"{self.url}/jobs", json=fields, headers=self.headers, timeout=GUARD)

    def progress(self, job: str) -> list[tuple[int, int, str | None]]:
        """Read what is reported until a job is done."""
        told = []
        while not told or told[-1][2] is None:
            state = self.stream.message().json()
            assert state["job"] == job
            told.append((state["done"], state["of"], state["result"]))
        return told


@contextlib.contextmanager
def working(port: int, place: Path) -> Iterator[subprocess.Popen[bytes]]:
    script = str(FOLDER / "worker.py")
    settings = {"SITE": f"http://127.0.0.1:{port}", "WORKER_TOKEN": TOKEN, "PAUSE": "0", "PLACE": str(place)}
    with process(sys.executable, script, **settings) as running:
        yield running


def test_the_worker_reports_to_who_asked_and_begins_again_where_it_stopped(port: int, tmp_path: Path) -> None:
    ada, bob = User(port), User(port)
    first = ada.post({"text": "one three"}).json()
    assert first["workers"] == 0  # so it waits
    with working(port, tmp_path / "place") as script:
        assert ada.progress(first["job"]) == [(0, 0, None), (0, 2, None), (1, 2, None), (2, 2, "one 3, three 5")]
        script.send_signal(signal.SIGTERM)
        assert script.wait(GUARD) == 0
    second = ada.post({"text": "four"}).json()["job"]
    with working(port, tmp_path / "place"):
        assert ada.progress(second) == [(0, 0, None), (0, 1, None), (1, 1, "four 4")]  # and nothing of the first
        third = bob.post({"text": "<b>"}).json()
        assert third["workers"] == 1
        assert bob.progress(third["job"])[-1] == (1, 1, "<b> 3")
    again = Stream(port, "/events", ada.headers)
    again.opened()
    assert [again.message().json()["job"] for _ in range(7)] == [first["job"]] * 4 + [second] * 3
    for stream in (ada.stream, bob.stream, again):
        stream.close()


@pytest.mark.parametrize("fields", [{}, [], {"text": " "}, {"text": 7}, {"text": "x" * 501}, {"text": "\ud800"}])
def test_a_job_that_is_none_is_refused(port: int, fields: Any) -> None:
    ada = User(port)
    answer = ada.post(fields)
    assert answer.status_code == 400 and "text of 1 to 500" in answer.json()["error"]
    ada.stream.close()


def test_only_workers_see_jobs_and_report_and_only_visitors_post(port: int) -> None:
    url = f"http://127.0.0.1:{port}"

    def status(method: str, path: str, **options: Any) -> int:
        with requests.request(method, url + path, timeout=GUARD, stream=True, **options) as answer:
            return answer.status_code

    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        assert status("GET", "/worker/jobs", headers=headers) == 401
        assert status("POST", "/worker/report", headers=headers, json={}) == 401
    worker = {"Authorization": f"Bearer {TOKEN}"}
    for report in ({}, [], {"job": "1", "user": None, "text": "x"}, {"job": "1", "user": "x", "text": "x", "more": 1}):
        assert status("POST", "/worker/report", headers=worker, json=report) == 400
    assert status("GET", "/events") == 403
    assert status("POST", "/jobs", json={"text": "x"}) == 403


def test_in_a_browser_the_page_shows_how_far_its_own_jobs_are(tmp_path: Path, open_tab: Callable[[str], Tab]) -> None:
    port = free_port()
    with serving(port):
        ada, bob = open_tab(f"http://127.0.0.1:{port}/"), open_tab(f"http://localhost:{port}/")
        for tab in (ada, bob):
            until(lambda tab=tab: tab.text("#notice") == "live")
        post(ada, "<b>hello</b> there")
        ada.wait_for("output", "waiting")
        until(lambda: "No worker" in ada.text("#notice"))
        with working(port, tmp_path / "place"):
            ada.wait_for("output", "<b>hello</b> 12, there 5")
            post(bob, "mine")
            bob.wait_for("output", "mine 4")
        assert ada.texts("li .text") == ["<b>hello</b> there"] and bob.texts("li .text") == ["mine"]
        ada.run("location.reload()")
        until(lambda: ada.was_reloaded)
        ada.wait_for("output", "<b>hello</b> 12, there 5")
        post(ada, "forgotten")
        ada.wait_for("output", "waiting", "<b>hello</b> 12, there 5")
    with serving(port):
        ada.wait_for("output", "may be lost: post it again", "<b>hello</b> 12, there 5")
        with working(port, tmp_path / "place"):
            post(ada, "again")
            ada.wait_for("output", "again 5", "may be lost: post it again", "<b>hello</b> 12, there 5")


def post(tab: Tab, text: str) -> None:
    tab.fill("[name=text]", text)
    tab.click("button")
