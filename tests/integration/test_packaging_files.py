"""The files for Docker and hosted CI: what they say is parsed, and their commands are run without Docker."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.redis_server import RedisServer
from tests.servers import ROOT, answers, free_port, missing, process
from tests.streams import Stream, call, until

#: The instructions of the Dockerfile, in order.
DOCKERFILE = [
    tuple(line.split(maxsplit=1))
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", "").splitlines()
    if line and not line.startswith("#")
]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def instructions(name: str) -> list[str]:
    """Return the arguments of the instructions of this name."""
    return [arguments for instruction, arguments in DOCKERFILE if instruction == name]


def exec_form(arguments: str) -> list[str]:
    """Return the command of an instruction that starts a program without a shell."""
    command = json.loads(arguments[arguments.index("[") :])
    assert isinstance(command, list)
    return command


def on_port(command: list[str], port: int) -> list[str]:
    """Return a command of the image with another port than 8000."""
    return [word.replace("8000", str(port)) for word in command]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install what the image copies as it does, but for the dependencies, which are here, and give the folder."""
    folder = tmp_path_factory.mktemp("image")
    source, target = folder / "src", folder / "installed"
    source.mkdir()
    for arguments in instructions("COPY"):
        *names, where = arguments.split()
        for name in names:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / where, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, source / where)
    (install,) = instructions("RUN")
    assert install.startswith("pip install ")
    command = (sys.executable, "-m", *shlex.split(install), "--no-deps", "--target", str(target))
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=240, check=False)
    if "NewConnectionError" in done.stderr or "No matching distribution" in done.stderr:
        missing("the package index cannot be reached: what builds the package")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "does not provide the extra" not in done.stdout + done.stderr
    return target


@pytest.fixture
def redis_of_compose(tmp_path: Path) -> Iterator[RedisServer]:
    """Give a Redis server with the options that it has in the compose file."""
    program, *options = SERVICES["redis"]["command"]
    assert program == "redis-server"
    server = RedisServer(tmp_path, *options)
    yield server
    server.close()


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Run nginx with the configuration of the compose file, and give its port and the port it passes requests on to."""
    if shutil.which("nginx") is None:
        missing("nginx")
    (mounted,) = SERVICES["nginx"]["volumes"]
    source, target, mode = mounted.split(":")
    assert (target, mode) == ("/etc/nginx/nginx.conf", "ro")
    port, behind = free_port(), free_port()
    temporary = "".join(f"{kind}_temp_path {tmp_path}/{kind}; " for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    changes = {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "http://ssehub:8000;": f"http://127.0.0.1:{behind};",
        "/tmp/nginx.pid": f"{tmp_path}/nginx.pid",
        "http {": f"http {{ client_body_temp_path {tmp_path}/body; access_log off; {temporary}",
    }
    configuration = (ROOT / source).read_text()
    for old, new in changes.items():
        assert configuration.count(old) == 1, old
        configuration = configuration.replace(old, new)
    (tmp_path / "nginx.conf").write_text(configuration)
    command = ("nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;")
    with process(*command):
        yield port, behind


def test_the_services_of_compose_run_as_they_are_written(
    installed: Path, redis_of_compose: RedisServer, nginx: tuple[int, int]
) -> None:
    port, behind = nginx
    environment = dict(SERVICES["ssehub"]["environment"])
    assert environment.pop("SSEHUB_TOKEN").startswith("${SSEHUB_TOKEN:?")
    log = environment["SSEHUB_LOG"].replace("redis:6379", f"127.0.0.1:{redis_of_compose.port}")
    program, *options = exec_form(instructions("CMD")[0])
    command = (str(installed / "bin" / program), *options, "--port", str(behind))
    (healthy,) = (exec_form(arguments) for arguments in instructions("HEALTHCHECK"))
    assert healthy[0] == "python"
    check = [sys.executable, *on_port(healthy[1:], behind)]
    more: dict[str, Any] = {"SSEHUB_LOG": log, "SSEHUB_TOKEN": "secret", "PYTHONPATH": str(installed)}
    with process(*command, **more) as hub:
        until(lambda: answers(port), "the service to answer through nginx", guard=30)
        assert subprocess.run(check, timeout=30, check=False).returncode == 0
        assert b"<title>" in call(port, "GET", "/")[1]
        stream = Stream(port, "/events?zone=news")
        stream.opened()
        assert call(port, "POST", "/send", {"data": "hello", "zone": "news"})[0] == 401
        sent = call(port, "POST", "/send", {"data": "hello", "zone": "news"}, Authorization="Bearer secret")
        assert sent[0] == 200 and stream.message().data == "hello"
        assert redis_of_compose.client.xlen("{ssehub}:log") == 2
        assert redis_of_compose.client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        redis_of_compose.kill()
        until(lambda: call(port, "GET", "/health")[1]["status"] == "degraded", "Redis to be missed")
        assert subprocess.run(check, timeout=30, check=False).returncode == 0
        hub.send_signal(signal.SIGTERM)
        assert stream.rest() == [] and b"\nretry: " in stream.raw  # it is told when to come back
        assert hub.wait(30) == 0
        stream.close()
    assert subprocess.run(check, timeout=30, check=False, stderr=subprocess.DEVNULL).returncode != 0


def test_the_image_needs_no_root() -> None:
    *_, user = instructions("USER")
    assert all(int(number) > 0 for number in user.split(":"))
    assert instructions("EXPOSE") == ["8000"]
    assert SERVICES["ssehub"]["read_only"] is True and SERVICES["ssehub"]["cap_drop"] == ["ALL"]


def test_what_the_image_copies_is_in_the_context_of_the_build() -> None:
    rules = (ROOT / ".dockerignore").read_text().split()
    for name in (name for arguments in instructions("COPY") for name in arguments.split()[:-1]):
        (last,) = [rule for rule in rules if fnmatch.fnmatch(name, rule.removeprefix("!"))][-1:]
        assert last.startswith("!") and (ROOT / name).exists(), name


def test_the_services_of_compose_wait_for_each_other() -> None:
    for service in SERVICES.values():
        for name, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[name] or (SERVICES[name]["build"] == "." and instructions("HEALTHCHECK"))
        volumes = [one.split(":")[0] for one in service.get("volumes", ())]
        assert all((ROOT / one).exists() if one.startswith(".") else one in COMPOSE["volumes"] for one in volumes)
    assert [port.split(":")[0] for service in SERVICES.values() for port in service.get("ports", ())] == ["127.0.0.1"]


def test_hosted_ci_runs_everything_on_each_version_of_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    matrix = job["strategy"]["matrix"]
    classifiers = re.findall(r"Python :: (3\.\d+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert matrix["python"] == [f"3.{minor}" for minor in range(10, 15)] and set(classifiers) <= set(matrix["python"])
    assert matrix["include"] == [{"python": "3.14", "free_threaded": True}] and matrix["free_threaded"] == [False]
    assert job["continue-on-error"] == "${{ matrix.free_threaded }}"
    script = "".join(step.get("run", "") for step in job["steps"])
    assert ".ci/run" in script.split() and os.access(ROOT / ".ci" / "run", os.X_OK)
    assert all(
        subprocess.run(("bash", "-n", "-c", step.get("run", "")), check=False).returncode == 0 for step in job["steps"]
    )
