"""What open streams cost one worker of gunicorn: memory, the time to take them in, and to reach them all once.

``python -m benchmarks.capacity`` from the root of the repository; ``docs/deployment.rst`` has its figures.
"""

from __future__ import annotations

import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

from benchmarks.fanout import APPLICATIONS, Server
from benchmarks.fleet import Fleet
from benchmarks.table import table
from ssehub.bench import raise_file_limit

SIZES = (("gthread", 200), ("gthread", 1000), ("gthread", 2000), ("gevent", 1000), ("gevent", 5000), ("gevent", 10_000))
_PATIENCE = 120.0
_TIMES = 5
_AT_REST = 20.0  # seconds; a heartbeat comes every 15


@dataclass(frozen=True)
class Result:
    """What was measured."""

    memory: float  # KiB for each stream
    connect: float  # seconds until all were open
    last: float  # milliseconds from the call of broadcast until the last stream has the message
    idle: float  # percent of a processor while nothing is sent


def measure(worker: str, streams: int) -> Result:
    """Open streams to a server of their own, and send them single messages."""
    with Server(APPLICATIONS["ssehub"], worker, streams) as server, Fleet() as fleet:
        before = _memory(server)
        began = time.monotonic()
        fleet.start(f"{server.url}/events", streams)
        if not fleet.wait_connected(_PATIENCE)["complete"]:
            raise RuntimeError(f"{streams} streams were not connected within {_PATIENCE:g} s")
        connect = time.monotonic() - began
        grown = _memory(server) - before
        processor = server.cpu()
        time.sleep(_AT_REST)
        idle = (server.cpu() - processor) / _AT_REST
        return Result(grown / streams, connect, 1000 * median(_reach(server, fleet) for _ in range(_TIMES)), 100 * idle)


def _reach(server: Server, fleet: Fleet) -> float:
    """Return the seconds a single message takes until everyone has it."""
    fleet.reset()
    started = float(server.ask("POST", "/burst?n=1", _PATIENCE)["started"])
    arrived = fleet.expect(1, _PATIENCE)["last_arrival"]
    assert arrived is not None
    return arrived - started


def _memory(server: Server) -> float:
    """Return the resident memory of the server's only worker, in KiB."""
    (worker,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    status = Path(f"/proc/{worker}/status").read_text()
    return float(status.partition("VmRSS:")[2].split()[0])


def main() -> int:
    """Measure all sizes, and print the table."""
    raise_file_limit()
    rows = []
    for worker, streams in SIZES:
        memory, connect, last, idle = astuple(measure(worker, streams))
        rows.append([worker, f"{streams:,}", f"{memory:.0f}", f"{connect:.1f}", f"{last:.0f}", f"{idle:.1f}"])
        print(*rows[-1], file=sys.stderr)
    head = ["worker", "streams", "KiB for each", "s to connect all", "ms to the last", "% of a processor at rest"]
    print(table([head, *rows]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
