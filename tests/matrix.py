"""The test matrix: the kinds of servers, what the hub has to do on each, and how to run ``tests/apps/matrix.py``."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.servers import answers, free_port, gunicorn, missing, nginx, process
from tests.streams import GUARD, Stream, call, opened_streams, until

APP = "tests.apps.matrix:app"
THREADS = 40

NO_SOCKET = "the server does not show the client's socket"

_VERSIONS = {"nginx-1.0": "", "nginx-1.1": 'proxy_http_version 1.1; proxy_set_header Connection "";'}


class Kind(NamedTuple):
    """The expected behaviour of a kind of server."""

    #: Whether it serves only one request at a time.
    is_single: bool = False
    #: Whether ``detach=None`` detaches streams.
    detaches: bool = False
    #: Whether it shows the client's socket.
    shows: bool = True
    #: Whether it is a proxy. The client's connection then ends at the proxy, not at the hub.
    is_proxy: bool = False


KINDS = {
    "sync": Kind(is_single=True, detaches=True),
    "gthread": Kind(),
    "gevent": Kind(),
    "gevent_pywsgi": Kind(),
    "werkzeug": Kind(),
    "werkzeug-single": Kind(is_single=True, detaches=True),
    "wsgiref": Kind(detaches=True),  # its environ has a wrong wsgi.multithread
    "cheroot": Kind(),
    "pywsgi": Kind(),
    "uwsgi": Kind(),
    "waitress": Kind(shows=False),
    "nginx-1.0": Kind(is_proxy=True),
    "nginx-1.1": Kind(is_proxy=True),
}


class Raw:
    """A client that reads raw bytes.

    :param buffer: the size of the receive buffer: bytes that the kernel accepts while the client does not read.
    """

    def __init__(self, port: int, request: bytes, buffer: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(GUARD)
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(request)
        self.data = b""
        opened_streams.append(self)

    def read_until(self, condition: Callable[[bytes], bool]) -> bytes:
        """Read until a condition on all received bytes is true. Raise EOFError at the end of the stream."""
        while not condition(self.data):
            if not (piece := self.socket.recv(65536)):
                raise EOFError(self.data)
            self.data += piece
        return self.data

    def rest(self) -> bytes:
        """Read to the end of the stream. Return all received bytes."""
        with contextlib.suppress(EOFError):
            self.read_until(lambda _: False)
        return self.data

    def response(self) -> bytes:
        """Read to the end of the response: the last chunk, or the end of the connection."""
        head = self.read_until(lambda data: b"\r\n\r\n" in data).lower().partition(b"\r\n\r\n")[0]
        if b"transfer-encoding: chunked" in head:
            return self.read_until(lambda data: data.endswith(b"\r\n0\r\n\r\n"))
        return self.rest()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def request(path: str, version: str = "1.1", method: str = "GET") -> bytes:
    """Return the bytes of a request."""
    return f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode()


def chunks_of(body: bytes) -> Iterator[bytes]:
    """Yield the chunks of a chunked body. The last one is empty."""
    while body:
        size, _, body = body.partition(b"\r\n")
        chunk, end, body = body[: int(size, 16)], body[int(size, 16) :][:2], body[int(size, 16) + 2 :]
        assert end == b"\r\n"
        yield chunk


class Served(NamedTuple):
    """The matrix application on a running server."""

    kind: str
    detach: str
    port: int
    framework: str
    #: A second port, on which the application answers in its own thread, even if the server is busy.
    control: int
    log: Path
    main: subprocess.Popen[bytes]

    @property
    def is_busy(self) -> bool:
        """Whether an open stream keeps the server from serving other requests."""
        return KINDS[self.kind].is_single and self.detach == "False"

    @property
    def way(self) -> str:
        """How streams must be served: ``"detached"``, ``"parked"`` or ``"thread"``."""
        if self.detach == "False" or not KINDS[self.kind].shows:
            return "thread"
        return "detached" if self.detach == "True" or KINDS[self.kind].detaches else "parked"

    def stats(self) -> dict[str, Any]:
        """Return the statistics of the hub and the process."""
        found = call(self.control, "GET", "/stats")[1]
        assert isinstance(found, dict)
        return found

    def send(self, data: str, hub: str | None = None) -> None:
        """Send a message to all clients of this hub, or of another one."""
        assert call(self.control, "POST", f"/send?data={data}&hub={hub or self.detach}") == (200, b"sent")

    def end(self, client_id: str, hub: str | None = None) -> None:
        """End the streams of a client."""
        assert call(self.control, "POST", f"/end?client_id={client_id}&hub={hub or self.detach}") == (200, b"1")

    def open(self, count: int, path: str = "/events") -> list[Stream]:
        """Open streams, and read the first event of each."""
        streams = [Stream(self.port, path) for _ in range(count)]
        for stream in streams:
            stream.opened()
        return streams

    def nobody(self) -> None:
        """Wait until all streams are closed, also those of earlier tests."""
        until(lambda: self.stats()["connections"] == 0, "the streams to be gone")

    def descriptors(self) -> list[str]:
        """Return the open files and sockets of the serving process."""
        folder = Path("/proc", str(self.stats()["pid"]), "fd")
        found = []
        for one in folder.iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(one))
        return sorted(found)

    def threads(self) -> list[str]:
        """Return the names of the threads of the serving process."""
        found = []
        for one in Path("/proc", str(self.stats()["pid"]), "task").glob("*/comm"):
            with contextlib.suppress(OSError):  # the thread has just ended
                found.append(one.read_text().strip())
        return found

    def trouble(self) -> list[str]:
        """Return the lines of the server's log that report errors."""
        lines = self.log.read_text(errors="replace").splitlines()
        if self.kind == "uwsgi" and self.way == "thread":  # uwsgi logs this if a client has left
            lines = [line for line in lines if "write error" not in line and "Connection reset" not in line]
        # gunicorn 27 logs this if two instances run as the same user.
        lines = [line for line in lines if "Control server error" not in line]
        return [line for line in lines if re.search(r"Traceback|\berror\b|\[CRITICAL\]|Exception", line, re.I)]


def _commands(kind: str, port: int, folder: Path) -> list[tuple[str, ...]]:
    if kind in ("sync", "gthread", "gevent", "gevent_pywsgi"):
        return [gunicorn(kind, port, "--log-level", "info", threads=THREADS, app=APP)]
    if kind == "uwsgi":
        binary = Path(os.environ.get("UWSGI") or Path(sysconfig.get_path("scripts"), "uwsgi"))
        if not binary.exists():
            missing("uwsgi")
        options = (
            f"--http-socket 127.0.0.1:{port} --master --threads {THREADS} --die-on-term --disable-logging --need-app"
        )
        packages = ("--pythonpath", sysconfig.get_path("purelib"))  # uwsgi may have been built for another environment
        return [(str(binary), *options.split(), "--listen", "100", *packages, "--module", APP)]
    if kind == "waitress":
        return [(sys.executable, "-m", "waitress", f"--listen=127.0.0.1:{port}", f"--threads={THREADS}", APP)]
    if kind.startswith("nginx"):
        behind = free_port()
        location = f"proxy_pass http://behind; {_VERSIONS[kind]}"
        command = nginx(
            folder,
            f"upstream behind {{ server 127.0.0.1:{behind}; keepalive 8; }}"
            f" server {{ listen 127.0.0.1:{port}; location / {{ {location} }} }}",
        )
        return [*_commands("gthread", behind, folder), command]
    return [(sys.executable, "-m", "tests.apps.run", kind, str(port), APP)]


@contextlib.contextmanager
def served(
    kind: str, folder: Path, detach: str = "None", framework: str = "wsgi", **environment: str
) -> Iterator[Served]:
    """Run the application on a server. At the end, check that its log has no errors."""
    port, control = free_port(), free_port()
    if not KINDS[kind].shows:
        environment.setdefault("HEARTBEAT", "0.1")  # otherwise the hub does not notice that a client has left
    environment.update(DETACH=detach, FRAMEWORK=framework, CONTROL=str(control), PYTHONUNBUFFERED="1")
    log = folder / f"{kind} {detach} {port}.log"
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(process(*command, log=log, **environment))  # type: ignore[arg-type]
            for command in _commands(kind, port, folder)
        ]
        here = Served(kind, detach, port, framework, control, log, started[0])

        def is_there() -> bool:
            assert all(one.poll() is None for one in started), here.log.read_text()
            return answers(port)

        until(is_there, f"{kind} to answer", guard=30)
        yield here
        for one in started:
            one.terminate()
        for one in started:
            one.wait(30)
    assert not here.trouble(), log.read_text(errors="replace")
