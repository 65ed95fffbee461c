"""The example of the poll: a Django site under gunicorn, and browsers that see each other's votes."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.browser import Tab
from tests.servers import ROOT, answers, free_port, process
from tests.streams import GUARD, Stream, until

FOLDER = ROOT / "examples" / "poll"


@contextlib.contextmanager
def serving(port: int, folder: Path, *more: str, **environment: str) -> Iterator[None]:
    """Run the site as its README says."""
    environment["DATABASE"] = str(folder / "poll.sqlite3")
    lines = (FOLDER / "README.rst").read_text().splitlines()
    (line,) = (one for one in lines if one.startswith("       .venv/bin/gunicorn"))
    words = (*line.split()[1:], "--chdir", str(FOLDER), "-b", f"127.0.0.1:{port}", "--log-level", "error", *more)
    with process(sys.executable, "-m", "gunicorn", *words, **environment):  # type: ignore[arg-type]
        until(lambda: answers(port, "/"), "the site to answer")
        yield


def manage(folder: Path, *arguments: str, **environment: str) -> str:
    """Run Django's command line."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False,
        env={"PYTHONPATH": str(ROOT), "DATABASE": str(folder / "poll.sqlite3"), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    manage(tmp_path, "migrate")
    return tmp_path


def vote(port: int, choice: int, session: requests.Session | None = None) -> tuple[int, dict[str, object]]:
    with contextlib.ExitStack() as stack:
        session = session or stack.enter_context(requests.Session())
        url = f"http://127.0.0.1:{port}/"
        token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', session.get(url, timeout=GUARD).text)
        assert token is not None
        answer = session.post(f"{url}vote/{choice}", headers={"X-CSRFToken": token[1]}, timeout=GUARD)
        return answer.status_code, answer.json() if answer.headers["Content-Type"] == "application/json" else {}


def test_votes_are_live_and_counted_once(folder: Path, open_tab: Callable[[str], Tab]) -> None:
    port = free_port()
    with serving(port, folder):
        ada, bob = (open_tab(f"http://127.0.0.1:{port}/") for _ in range(2))
        for tab in (ada, bob):
            tab.wait_for("#state", "live")
        ada.click("[data-choice='2'] button")
        for tab in (ada, bob):
            tab.wait_for("output", "0", "1", "0")
        assert ada.run("return document.querySelector('[data-choice] button').disabled")
        with requests.Session() as session:
            assert vote(port, 2, session) == (200, {"voted": 2})
            assert vote(port, 1, session) == (409, {"error": "you have voted already"})
        assert vote(port, 99)[0] == 404
        bob.wait_for("output", "0", "2", "0")
        assert requests.post(f"http://127.0.0.1:{port}/vote/1", timeout=GUARD).status_code == 403, "CSRF"
        with ThreadPoolExecutor(8) as pool:
            assert [status for status, _ in pool.map(lambda n: vote(port, n % 3 + 1), range(12))] == [200] * 12
        for tab in (ada, bob):
            tab.wait_for("output", "4", "6", "4")
            assert not tab.was_reloaded


def test_the_shell_sends_to_the_pages_of_all_workers(folder: Path) -> None:
    port = free_port()
    with serving(port, folder, "-w", "2"):
        streams = [Stream(port, "/events") for _ in range(4)]
        for stream in streams:
            stream.opened()
        manage(folder, "ssehub_send", "Ten minutes left", "--event", "notice")
        assert vote(port, 3)[0] == 200
        for stream in streams:
            assert stream.message().data == "Ten minutes left"
            assert stream.message().json()["votes"]["3"] == 1
            stream.close()
