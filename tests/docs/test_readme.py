"""The README's code runs as it is printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.scripted import bodies
from tests.servers import ROOT, free_port, missing, process, running
from tests.streams import GUARD, Stream, call, until

README = (ROOT / "README.rst").read_text()


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language, without their indentation."""
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:(?:    .*)?\n)+)", README, re.MULTILINE)
    return ["\n".join(line[4:] for line in block.splitlines()).strip() + "\n" for block in found]


FLASK, WSGI, TOUR, LOOP, CHANGED = blocks("python")
HOOKS = (ROOT / "examples" / "quickstart" / "follow.py").read_text()
#: The Flask application with the line that is different on a shared log.
SHARED = FLASK
for line in CHANGED.splitlines():
    if line:
        SHARED = re.sub(rf"^{re.escape(line[:9])}.*$", line, SHARED, count=1, flags=re.MULTILINE)


def test_the_flask_example_has_twelve_lines_at_the_most_and_is_the_quickstart() -> None:
    assert len([line for line in FLASK.splitlines() if line]) <= 12
    quickstart = ROOT / "examples" / "quickstart"
    assert (quickstart / "app.py").read_text() == FLASK
    assert textwrap.indent(HOOKS, "   ", lambda line: bool(line.strip())) in (ROOT / "docs" / "client.rst").read_text()


@pytest.mark.parametrize("worker", ["", "-k gthread", "-k gevent"])
def test_the_flask_example_runs_under_gunicorn_and_restarts_at_once(tmp_path: Path, worker: str) -> None:
    # Under the default worker streams leave their thread by themselves.
    (tmp_path / "app.py").write_text(FLASK.replace("Hub()", "Hub(detach=True)") if worker else FLASK)
    command = re.findall(rf"^    (gunicorn {worker}.*)app:app$", README, re.MULTILINE)[0].split()
    port = free_port()
    more = ("--chdir", str(tmp_path), "-b", f"127.0.0.1:{port}", "app:app")
    with process(sys.executable, "-m", *command, "--graceful-timeout", "60", *more) as server:
        until(lambda: _is_there(port))
        stream = Stream(port, "/events?user=ada")
        stream.opened()
        status, answer = call(port, "POST", "/news", {"text": "it works"})
        message = stream.message()
        assert status == 200 and (message.data, message.id) == ("it works", answer["id"])
        server.terminate()
        assert stream.rest() == []
        stream.close()
        assert server.wait(20) == 0  # if the worker waited for streams, it would be the graceful timeout


def _is_there(port: int) -> bool:
    try:
        return call(port, "GET", "/nothing")[0] == 404
    except OSError:
        return False


def test_with_a_shared_log_four_workers_are_one_hub_and_the_shell_sends_to_it(tmp_path: Path) -> None:
    assert SHARED.count("sqlite:hub.db") == 1
    (tmp_path / "app.py").write_text(SHARED)
    command = re.findall(r"^    (gunicorn -w 4) app:app$", README, re.MULTILINE)[0].split()
    port = free_port()
    more = ("--chdir", str(tmp_path), "-b", f"127.0.0.1:{port}", "app:app")
    with process(sys.executable, "-m", *command, *more):
        until(lambda: _is_there(port))
        streams = [Stream(port, "/events") for _ in range(12)]
        for stream in streams:
            stream.opened()
        assert call(port, "POST", "/news", {"text": "from a worker"})[0] == 200
        script = re.findall(r'^    python -c "(.*)"$', README, re.MULTILINE)[0]
        shell = re.findall(r"^    ssehub (send --log .*)$", README, re.MULTILINE)[0]
        for arguments in (("-c", script), ("-m", "ssehub", *shlex.split(shell))):
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run([sys.executable, *arguments], check=True, cwd=tmp_path, env=environment, timeout=60)
        for stream in streams:
            assert stream.data(3) == ["from a worker", "hello", "hello"]
            stream.close()


def test_two_lines_lead_to_streams_on_several_workers(tmp_path: Path) -> None:
    recipe = (ROOT / "docs" / "service.rst").read_text().split(".. workers-begin")[1].split(".. workers-end")[0]
    lines = [line[4:] for line in recipe.splitlines() if line.startswith("    ")]
    assert len(lines) == 2
    command = lines[-1].removeprefix(".venv/bin/").replace("hub.db", f"{tmp_path}/hub.db").split()
    port = free_port()
    with process(sys.executable, "-m", *command, "--port", str(port)):
        until(lambda: _is_there(port))
        assert b"console" in call(port, "GET", "/")[1]
        workers: set[int] = set()
        until(lambda: workers.add(call(port, "GET", "/stats")[1]["server"]["pid"]) or len(workers) == 4, "all workers")
        streams = [Stream(port, f"/events?client_id=c{n}") for n in range(24)]
        for stream in streams:
            stream.opened()
        answer = call(port, "GET", "/stats")[1]
        there = answer["zones"]["default"]
        assert len(there) == 24 and len({one["process"] for one in there}) > 1
        assert sum(one["connections"] for one in answer["processes"]) == 24
        call(port, "POST", "/send", {"data": "hello", "broadcast": "true"})
        for stream in streams:
            assert stream.message().data == "hello"
            stream.close()


def test_the_wsgi_example_runs(site: Any) -> None:
    scope: dict[str, Any] = {}
    exec(WSGI, scope)
    stream = site(scope["application"]).stream()
    stream.opened()
    scope["hub"].broadcast("hello", zone="news")
    assert stream.message().data == "hello"
    scope["hub"].close()
    stream.close()


def test_the_tour_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(TOUR, {})
    assert "'connections': 0" in capsys.readouterr().out


def test_the_loop_of_a_script_prints_what_comes(scripted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    server = scripted(bodies("retry: 1\nid: 1\nevent: score\ndata: 42\n\n"))
    exec(LOOP.replace("http://127.0.0.1:8000", server.url), {})
    assert capsys.readouterr().out == "score 1 42\n"


def test_the_script_with_hooks_follows_a_service_until_enter(tmp_path: Path) -> None:
    with running("werkzeug") as port:
        (tmp_path / "follow.py").write_text(HOOKS.replace(":8000", f":{port}"))
        script = subprocess.Popen(
            [sys.executable, "-u", "follow.py"], cwd=tmp_path, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        with script:
            until(lambda: call(port, "GET", "/stats")[1]["stats"]["connections"] == 1)
            call(port, "POST", "/send", {"data": "42", "event": "score", "broadcast": "true"})
            assert script.stdout is not None
            said = {script.stdout.readline() for _ in range(4)}
            assert said == {"Enter ends it\n", "connected\n", "score: 42\n", "score 42\n"}
            out, _ = script.communicate("\n", timeout=GUARD)
            assert (out, script.returncode) == ("disconnected: in order\n", 0)


def test_the_names_in_the_table_exist() -> None:
    import ssehub

    ancestors = (ROOT / "docs" / "migrating.rst").read_text().split("From the four earlier systems")[1]
    table = re.findall(r"^``.*?(?:``)\s{2,}(.*)$", ancestors, re.MULTILINE)
    assert len(table) > 15
    objects = {"hub": ssehub.Hub, "connection": ssehub.Connection, "Hub": ssehub.Hub}
    for name in re.findall(r"``([\w.]+)", " ".join(table)):
        owner, _, attribute = name.rpartition(".")
        if not owner:
            assert hasattr(ssehub, name), name
        elif attribute.startswith("on_"):
            made = ssehub.Client("http://x/") if owner == "Client" else ssehub.Hub()
            assert hasattr(made, attribute), name
        else:
            assert hasattr(objects.get(owner) or getattr(ssehub, owner), attribute), name


def test_the_two_commands_are_one_line_each() -> None:
    for which in ("serve", "test"):
        between = README.split(f".. {which}-command-begin")[1].split(f".. {which}-command-end")[0]
        assert len(re.findall(r"^    \S", between, re.MULTILINE)) == 1


@pytest.mark.parametrize("part", ["chromium", "nginx"])
def test_a_part_that_is_missing_is_a_failure_in_ci_and_skipped_elsewhere(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=part):
        missing(part)
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match=part):
        missing(part)
