"""Applications: the servers that the fan-out benchmark compares, and how each is started."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers import nchan
from benchmarks.server import ROOT, Launch, greenlets, gunicorn, threads


@dataclass(frozen=True)
class Place:
    """The addresses and ports of a server."""

    folder: Path
    port: int
    #: The port for the load's requests. Only a server with a helper uses it.
    control: int
    streams: int


def _nothing() -> str:
    return ""


@dataclass(frozen=True)
class Application:
    """A program that serves streams and executes loads."""

    name: str
    launch: Callable[[Place], Launch]
    #: Returns what has to be installed; empty if everything is.
    missing: Callable[[], str] = _nothing
    #: Whether it can send to one client.
    addresses: bool = True
    #: Whether its memory is also measured with very many streams.
    many: bool = False


def _hub(detach: str, options: Callable[[int], Sequence[str]]) -> Callable[[Place], Launch]:
    return lambda place: Launch(
        gunicorn("benchmarks.hubapp:application", place.port, *options(place.streams)), {"DETACH": detach}
    )


def _naive(place: Place) -> Launch:
    return Launch(gunicorn("benchmarks.naive:application", place.port, *threads(place.streams)))


def _go(*options: str) -> Callable[[Place], Launch]:
    def launch(place: Place) -> Launch:
        program = place.folder / "fanout"
        if not program.exists():
            source = ROOT / "benchmarks" / "peers" / "fanout.go"
            subprocess.run(["go", "build", "-o", program, source], cwd=place.folder, check=True)
        return Launch([str(program), "-listen", f"127.0.0.1:{place.port}", *options])

    return launch


def _nchan(place: Place) -> Launch:
    configuration = nchan.configure(place.folder, place.port, place.streams)
    helper = [sys.executable, "-m", "benchmarks.peers.nchan", str(place.control), str(place.port)]
    return Launch(["nginx", "-p", str(place.folder), "-c", str(configuration)], helper=helper)


def _starlette(place: Place) -> Launch:
    options = ["--host", "127.0.0.1", "--port", str(place.port), "--log-level", "warning", "--backlog", "4096"]
    return Launch([sys.executable, "-m", "uvicorn", *options, "benchmarks.peers.starlette_app:application"])


def _missing_go() -> str:
    return "" if shutil.which("go") else "Go (Debian: golang-go)"


def _missing_nchan() -> str:
    return "" if shutil.which("nginx") and nchan.MODULE.exists() else "nginx and libnginx-mod-nchan (Debian)"


def _missing_starlette() -> str:
    found = all(importlib.util.find_spec(name) for name in ("sse_starlette", "uvicorn"))
    return "" if found else "sse-starlette and uvicorn (pip install -e '.[bench]')"


APPLICATIONS = (
    Application("ssehub threads", _hub("false", threads)),
    Application("ssehub parked", _hub("", threads)),
    Application("ssehub detached", _hub("", lambda streams: ()), many=True),
    Application("ssehub gevent", _hub("true", greenlets)),
    Application("naive", _naive, addresses=False),
    Application("go", _go(), _missing_go, many=True),
    Application("go batching", _go("-batch"), _missing_go),
    Application("nchan", _nchan, _missing_nchan, many=True),
    Application("sse-starlette", _starlette, _missing_starlette),
)


def available(names: Iterable[str]) -> tuple[list[Application], list[str]]:
    """Return the applications with these names that can run, and for each other one a line with the missing package."""
    chosen = [one for one in APPLICATIONS if one.name in names]
    lacks = {one.name: one.missing() for one in chosen}
    lines = [f"{name} is left out; install {lack}" for name, lack in lacks.items() if lack]
    return [one for one in chosen if not lacks[one.name]], lines


def versions(applications: Iterable[Application]) -> list[str]:
    """Return the versions of the peers among some applications."""
    found = []
    for name in (one.name for one in applications):
        if name == "go":
            found.append(_said_by("go", "version"))
        elif name == "nchan":
            found.append(_said_by("dpkg-query", "-W", "-f", "${Package} ${Version} ", "nginx", "libnginx-mod-nchan"))
        elif name == "sse-starlette":
            found += [f"{package} {version(package)}" for package in ("sse-starlette", "starlette", "uvicorn")]
    return [line for line in found if line]


def _said_by(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
