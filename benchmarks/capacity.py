"""The cost of open streams for one worker of gunicorn: memory, time to connect all, and time to reach all.

``python -m benchmarks.capacity`` from the root of the repository. ``docs/deployment.rst`` has the results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from statistics import median

from benchmarks.fleet import Fleet
from benchmarks.processes import Cores
from benchmarks.server import Launch, Server, greenlets, gunicorn, threads
from benchmarks.table import table
from ssehub.tools.bench import raise_file_limit
from tests.servers import free_port

#: How streams are served: the worker's options, and the hub's ``detach``.
WAYS: dict[str, tuple[Callable[[int], Sequence[str]], str]] = {
    "detached (sync)": (lambda streams: (), ""),
    "parked (gthread)": (threads, ""),
    "on threads (gthread)": (threads, "false"),
    "parked (gevent)": (greenlets, ""),
    "on greenlets (gevent)": (greenlets, "false"),
}
SIZES = (
    ("detached (sync)", 1000),
    ("detached (sync)", 10_000),
    ("parked (gthread)", 1000),
    ("on threads (gthread)", 1000),
    ("parked (gevent)", 1000),
    ("on greenlets (gevent)", 1000),
)
_PATIENCE = 120.0
_TIMES = 5
_AT_REST = 20.0  # seconds; a heartbeat comes every 15


@dataclass(frozen=True)
class Result:
    """The result of a measurement."""

    memory: float  # KiB for each stream
    connect: float  # seconds until all were open
    last: float  # milliseconds from the call of broadcast until the last stream has received the message
    idle: float  # percent of a processor while no messages are sent


def measure(way: str, streams: int) -> Result:
    """Open streams on a new server, and send single messages to them."""
    port = free_port()
    options, detach = WAYS[way]
    launch = Launch(gunicorn("benchmarks.hubapp:application", port, *options(streams)), {"DETACH": detach})
    with Server(launch, port, port, Cores(None, None)) as server, Fleet() as fleet:
        before = server.resident_kib()
        began = time.monotonic()
        fleet.start(f"{server.url}/events", streams)
        if not fleet.wait_connected(_PATIENCE)["complete"]:
            raise RuntimeError(f"{streams} streams were not connected within {_PATIENCE:g} s")
        connect = time.monotonic() - began
        grown = server.resident_kib() - before
        processor = server.processor_seconds()
        time.sleep(_AT_REST)
        idle = (server.processor_seconds() - processor) / _AT_REST
        return Result(grown / streams, connect, 1000 * median(_reach(server, fleet) for _ in range(_TIMES)), 100 * idle)


def _reach(server: Server, fleet: Fleet) -> float:
    """Return the seconds until all streams have received a single message."""
    fleet.reset()
    started = float(server.ask("POST", "/burst?n=1", _PATIENCE)["started"])
    arrived = fleet.expect(1, _PATIENCE)["last_arrival"]
    assert arrived is not None
    return arrived - started


def main() -> int:
    """Measure all sizes, and print the table."""
    raise_file_limit()
    rows = []
    for way, streams in SIZES:
        memory, connect, last, idle = astuple(measure(way, streams))
        rows.append([way, f"{streams:,}", f"{memory:.1f}", f"{connect:.1f}", f"{last:.0f}", f"{idle:.1f}"])
        print(*rows[-1], file=sys.stderr)
    head = ["way", "streams", "KiB for each", "s to connect all", "ms to the last", "% of a processor at rest"]
    print(table([head, *rows]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
