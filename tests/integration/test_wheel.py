"""What is built installs: into empty environments, from which the examples are driven."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.browser import Tab
from tests.redis_server import RedisServer
from tests.servers import ROOT, answers, free_port, missing, process
from tests.streams import GUARD, Stream, call, until

NOT_OURS = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")


def run(*command: str | Path, folder: Path, timeout: float = 240) -> str:
    """Run a command away from the checkout, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    if "NewConnectionError" in done.stderr or "No matching distribution" in done.stderr:
        missing("the package index cannot be reached: what is installed from it")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_OURS)
    run(sys.executable, "-m", "build", "--outdir", folder, folder / "source", folder=folder)
    return folder


def install(folder: Path, what: str) -> Path:
    """Install something into an empty environment, and return where its programs are."""
    venv.create(folder / "env", with_pip=True)
    programs = folder / "env" / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", what, folder=folder)
    where = run(programs / "python", "-c", "import ssehub; print(ssehub.__file__)", folder=folder).strip()
    assert Path(where).is_relative_to(folder / "env"), where
    return programs


@contextlib.contextmanager
def serving(port: int, *command: str | Path, **environment: str) -> Iterator[None]:
    """Run a server whose packages are those of its own environment."""
    with process(*map(str, command), PYTHONPATH="", **environment):  # type: ignore[arg-type]
        until(lambda: answers(port, "/"), "the server to answer")
        yield


def gunicorn(programs: Path, example: Path, port: int, app: str) -> tuple[str | Path, ...]:
    command = (programs / "gunicorn", "-c", "python:ssehub.integrations.gunicorn", "-k", "gthread", "--threads", "50")
    return (*command, "--log-level", "error", "--chdir", str(example), "-b", f"127.0.0.1:{port}", app)


@pytest.mark.parametrize("kind", ["whl", "tar.gz"])
def test_it_installs_with_no_extra_and_serves_its_console(built: Path, tmp_path: Path, kind: str) -> None:
    (package,) = built.glob(f"*.{kind}")
    programs = install(tmp_path, str(package))
    code = "import ssehub, sys; ssehub.Hub(); ssehub.Client; print([name for name in sys.modules if name in sys.argv])"
    optional = ("redis", "flask", "django", "gunicorn", "gevent", "prometheus_client", "pytest")
    assert run(programs / "python", "-c", code, *optional, folder=tmp_path) == "[]\n"
    port = free_port()
    with serving(port, programs / "ssehub", "serve", "--port", str(port)):
        for path in ("", "console.js", "console.css"):
            assert requests.get(f"http://127.0.0.1:{port}/{path}", timeout=GUARD).ok, path
        stream = Stream(port, "/events")
        stream.opened()
        run(programs / "ssehub", "send", f"http://127.0.0.1:{port}", "hello", folder=tmp_path)
        assert stream.message().data == "hello"
        stream.close()
        assert call(port, "GET", "/metrics")[0] == 501


def test_the_flask_example_runs_from_the_wheel(
    built: Path, tmp_path: Path, redis_server: RedisServer, open_tab: Callable[[str], Tab]
) -> None:
    (wheel,) = built.glob("*.whl")
    programs = install(tmp_path, f"{wheel}[flask,gunicorn,redis]")
    shutil.copytree(ROOT / "examples" / "likes", tmp_path / "likes")
    port = free_port()
    environment = {"REDIS_URL": redis_server.url, "BOARD": secrets.token_hex(8)}
    with serving(port, *gunicorn(programs, tmp_path / "likes", port, "app:app"), **environment):
        stream = Stream(port, "/events")
        stream.opened()
        here, there = (open_tab(f"http://127.0.0.1:{port}/") for _ in range(2))
        answer = requests.post(f"http://127.0.0.1:{port}/comments", json={"content": "from the wheel"}, timeout=GUARD)
        assert answer.status_code == 201 and stream.message().json()["content"] == "from the wheel"
        for tab in (here, there):
            tab.wait_for("#comments .text", "from the wheel")
        stream.close()


def test_the_django_example_runs_from_the_wheel(built: Path, tmp_path: Path, open_tab: Callable[[str], Tab]) -> None:
    (wheel,) = built.glob("*.whl")
    programs = install(tmp_path, f"{wheel}[django,gunicorn]")
    shutil.copytree(ROOT / "examples" / "poll", tmp_path / "poll")
    run(programs / "python", "manage.py", "migrate", folder=tmp_path / "poll")
    port = free_port()
    with serving(port, *gunicorn(programs, tmp_path / "poll", port, "poll.wsgi")):
        stream = Stream(port, "/events")
        stream.opened()
        here, there = (open_tab(f"http://127.0.0.1:{port}/") for _ in range(2))
        for tab in (here, there):
            tab.wait_for("#state", "live")
        here.click("[data-choice='3'] button")
        for tab in (here, there):
            tab.wait_for("output", "0", "0", "1")
        assert stream.message().json()["total"] == 1
        stream.close()
