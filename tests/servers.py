"""Real servers for tests, each in its own process."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.streams import call, until

ROOT = Path(__file__).parent.parent

#: Servers that show the client's socket, so that the hub notices a closed connection without a heartbeat.
SHOWING = ("werkzeug", "wsgiref", "gthread", "gthread-preload", "gevent", "gevent-preload", "nginx")
#: Servers that do not show the client's socket.
HIDING = ("wsgiref-validate", "waitress")

_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {http}
}}
"""


def missing(what: str) -> None:
    """Skip the test, because a program is missing that pip cannot install. On CI, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is not installed")


#: The first port for this process of the test run. The ports are below those that the system gives to clients. Two test
#: runs at the same time begin with different ports, because the process id is added.
_first = 10_000 + 4000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 20_000
_ports = itertools.cycle(_first + (os.getpid() * 101 + n) % 4000 for n in range(4000))


def free_port() -> int:
    """Return a port that is not in use."""
    while True:
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", next(_ports))) as listener:
            return int(listener.getsockname()[1])


@contextlib.contextmanager
def process(
    *command: str, stop: int = signal.SIGKILL, log: Path | None = None, folder: Path = ROOT, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command during a ``with`` block. Then stop it and all processes that it started.

    :param stop: the signal that stops the processes.
    :param log: a file to which the output is appended.
    :param folder: the working directory.
    """
    output: Any = subprocess.DEVNULL if log is None else log.open("ab")
    errors = output if log is not None else subprocess.PIPE if stop != signal.SIGKILL else subprocess.DEVNULL
    running = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=output,
        stderr=errors,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, stop)
        running.communicate(timeout=30)
        if log is not None:
            output.close()


def output(code: str, *arguments: object, **environment: str) -> str:
    """Run a Python program in a process of its own. Return what it prints; it must not print errors."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.stderr == ""
    return done.stdout


def gunicorn(
    worker: str, port: int, *more: str, threads: int = 40, app: str = "tests.apps.service:app"
) -> tuple[str, ...]:
    """Return the command for gunicorn with one worker."""
    command: tuple[str, ...] = (
        sys.executable,
        "-m",
        "gunicorn",
        "-w",
        "1",
        "-k",
        worker,
        "-b",
        f"127.0.0.1:{port}",
        "--graceful-timeout",
    )
    command += ("2", "--backlog", "2048", "--worker-connections", str(threads + 100), "--log-level", "error", *more)
    return (*command, *(("--threads", str(threads)) if worker == "gthread" else ()), app)


def nginx(folder: Path, http: str) -> tuple[str, ...]:
    """Return the command for nginx. Skip the test if nginx is missing.

    :param folder: the folder for the configuration and temporary files.
    :param http: what the ``http`` block of the configuration contains.
    """
    if shutil.which("nginx") is None:
        missing("nginx")
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, http=http))
    return ("nginx", "-p", str(folder), "-c", str(configuration))


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield the sockets of a server and of its client, which are connected."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            yield server, client


def _commands(kind: str, port: int, threads: int, folder: str) -> list[tuple[str, ...]]:
    worker, _, preload = kind.partition("-")
    if worker in ("gthread", "gevent"):
        return [gunicorn(worker, port, *(["--preload"] if preload else []), threads=threads)]
    if kind == "waitress":
        listen = f"--listen=127.0.0.1:{port}"
        return [(sys.executable, "-m", "waitress", listen, f"--threads={threads}", "tests.apps.service:app")]
    if kind == "nginx":
        behind = free_port()
        proxied = f'proxy_pass http://127.0.0.1:{behind}; proxy_http_version 1.1; proxy_set_header Connection "";'
        server = f"server {{ listen 127.0.0.1:{port}; location / {{ {proxied} }} }}"
        command = nginx(Path(folder), f"client_body_buffer_size 1m; {server}")
        return [gunicorn("gthread", behind, threads=threads), command]
    return [(sys.executable, "-m", "tests.apps.run", kind, str(port))]


@contextlib.contextmanager
def running(kind: str, threads: int = 40, **environment: str) -> Iterator[int]:
    """Run the service on a kind of server. Return its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(process(*command, **environment))  # type: ignore[arg-type]
            for command in _commands(kind, port, threads, folder)
        ]
        until(lambda: _answers(port, started), f"{kind} to answer")
        yield port


def children(running: subprocess.Popen[Any]) -> set[int]:
    """Return the ids of a process's children, for example gunicorn's workers."""
    listed = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text()
    return {int(number) for number in listed.split()}


def _answers(port: int, started: list[subprocess.Popen[bytes]]) -> bool:
    assert all(one.poll() is None for one in started), "the server has ended"
    return answers(port)


def answers(port: int, path: str = "/health") -> bool:
    """Return whether a service or an application on a port answers this path with status 200."""
    try:
        return call(port, "GET", path)[0] == 200
    except OSError:
        return False
