"""Steps: the steps of the fan-out benchmark. In each, a new server gets streams, and then one or several loads."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.applications import Application, Place
from benchmarks.fleet import Fleet
from benchmarks.processes import Cores, on_core
from benchmarks.server import Server
from benchmarks.trials import WRONG, Burst, Each, Figure, Figures, Rate, Run

#: Number of streams that are connected before memory is measured, to exclude memory that a server allocates once.
FIRST = 10
#: Seconds to wait after connecting, until a server is idle.
REST = 0.5
#: Maximum number of seconds for connecting all streams.
PATIENCE = 60.0


@dataclass(frozen=True)
class Step:
    """A number of streams, and the loads that a server gets one after the other."""

    streams: int
    loads: tuple[Rate | Burst | Each, ...] = ()
    #: Whether the memory per stream is a result.
    memory: bool = False
    #: Whether some applications cannot serve this many streams.
    many: bool = False

    def columns(self) -> list[tuple[Sequence[str], str]]:
        """Return the names and descriptions of the results."""
        found = [(load.columns(self.streams), load.describe(self.streams)) for load in self.loads]
        memory = ((self._memory_column,), f"resident memory of the server for each of {self.streams:,} idle streams")
        return [*found, memory] if self.memory else found

    @property
    def _memory_column(self) -> str:
        return f"KiB ({self.streams:,})"

    def run(self, application: Application, folder: Path, cores: Cores) -> Figures:
        """Start an application, connect the streams, and measure. Return no results if it supports none of the loads.

        :raises RuntimeError: if the application does not start, or does not take the streams.
        """
        loads = [load for load in self.loads if application.addresses or not load.addressed]
        if (self.many and not application.many) or not (loads or self.memory):
            return {}
        query = "?client_id={n}" if any(load.addressed for load in loads) else ""
        with _serving(application, self.streams, folder, cores) as (server, fleet):
            memory = _connect(server, fleet, self.streams, query)
            figures: Figures = {self._memory_column: Figure(memory)} if self.memory else {}
            wrong = 0.0
            for load in loads:
                figures |= load.run(Run(server, fleet, self.streams))
                wrong += figures[WRONG].value
        return {**figures, WRONG: Figure(wrong)}


FULL = (
    Step(1000, (Rate(50, 10),), memory=True),
    Step(100, (Burst(2000),)),
    Step(1000, (Burst(200),)),
    Step(1000, (Each(20_000),)),
    Step(10_000, memory=True, many=True),
)
QUICK = (Step(50, (Rate(50, 0.5), Burst(200), Each(500)), memory=True),)


@contextlib.contextmanager
def _serving(application: Application, streams: int, folder: Path, cores: Cores) -> Iterator[tuple[Server, Fleet]]:
    """Run an application, and a fleet on the other core, in this context."""
    port, control = _free_ports()
    launch = application.launch(Place(folder, port, control, streams))
    control = control if launch.helper else port
    with Server(launch, port, control, cores) as server, on_core(cores.others), Fleet() as fleet:
        yield server, fleet


def _connect(server: Server, fleet: Fleet, streams: int, query: str) -> float:
    """Connect the streams, and return the memory of each idle stream in KiB."""
    before = 0.0
    for count in (FIRST, streams - FIRST):
        before = server.resident_kib()
        fleet.start(f"{server.url}/events{query}", count, first=1)
        report = fleet.wait_connected(PATIENCE)
        if not report["complete"]:
            raise RuntimeError(f"{report['connected']} of {streams} streams were connected")
        time.sleep(REST)
    return (server.resident_kib() - before) / (streams - FIRST)


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]
