"""Trials: the loads of the fan-out benchmark, and the results of each."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.fleet import Fleet, Report
from benchmarks.server import Server

SIZE = 100  # bytes of a message
#: Seconds without an arrival after which the benchmark stops waiting for messages to single clients.
QUIET = 3.0
#: Seconds to wait after the last message was sent. The share that has arrived by then is reported.
PATIENCE = 60.0


class Figure(NamedTuple):
    """A cell of the table."""

    value: float
    #: The share of the deliveries that arrived in time.
    arrived: float = 1.0


#: Results by column.
Figures = dict[str, Figure]
WRONG = "wrong"


class Run(NamedTuple):
    """A server, and a fleet that is connected to it."""

    server: Server
    fleet: Fleet
    streams: int

    def put(self, path: str, seconds: float) -> float:
        """Make the server send, and return the start time (``time.monotonic()``)."""
        self.fleet.reset()
        started = time.monotonic()
        with contextlib.suppress(OSError):  # its readers may block the server; messages that arrived still count
            started = float(self.server.ask("POST", f"{path}&size={SIZE}", seconds)["started"])
        return started


@dataclass(frozen=True)
class Rate:
    """Messages to all clients at a fixed rate."""

    per_second: float
    seconds: float

    addressed = False

    def columns(self, streams: int) -> Sequence[str]:
        """Return the names of the results."""
        return ("p50 ms", "p99 ms", "CPU s", "arrived %")

    def describe(self, streams: int) -> str:
        """Return the description of the results."""
        return (
            f"{self.per_second:g} messages a second to {streams:,} streams for {self.seconds:g} s: latency, and the"
            " server's seconds of processor for a million deliveries"
        )

    def run(self, trial: Run) -> Figures:
        """Measure the latency, and the server's processor time per million deliveries."""
        before = trial.server.processor_seconds()
        count = int(self.per_second * self.seconds)
        trial.put(f"/rate?per_second={self.per_second}&seconds={self.seconds}", self.seconds * 2 + PATIENCE / 4)
        report = trial.fleet.expect(count, PATIENCE / 4)
        used = trial.server.processor_seconds() - before
        share = report["received"] / (count * trial.streams)
        values = [report["latency"].get(name, float("nan")) * 1000 for name in ("p50", "p99")]
        values.append(used / report["received"] * 1e6 if report["received"] else float("nan"))
        figures = [Figure(value) for value in (*values, math.floor(share * 1000) / 10)]
        return {**dict(zip(self.columns(trial.streams), figures, strict=True)), WRONG: _wrong(report)}


@dataclass(frozen=True)
class Burst:
    """Messages to all clients as fast as the server accepts them."""

    count: int

    addressed = False

    def columns(self, streams: int) -> Sequence[str]:
        """Return the names of the results."""
        return (f"burst {streams:,}",)

    def describe(self, streams: int) -> str:
        """Return the description of the result."""
        return f"deliveries a second of {self.count:,} messages, as fast as it goes, to {streams:,} streams"

    def run(self, trial: Run) -> Figures:
        """Measure the deliveries per second, from the first call to the last arrival."""
        started = trial.put(f"/burst?n={self.count}", PATIENCE)
        report = trial.fleet.expect(self.count, PATIENCE)
        figure = Figure(_per_second(report, started), report["received"] / (self.count * trial.streams))
        return {self.columns(trial.streams)[0]: figure, WRONG: _wrong(report)}


@dataclass(frozen=True)
class Each:
    """Messages to single random clients."""

    count: int

    addressed = True

    def columns(self, streams: int) -> Sequence[str]:
        """Return the names of the results."""
        return (f"1 of {streams:,}", "lost")

    def describe(self, streams: int) -> str:
        """Return the description of the results."""
        return f"messages a second, of {self.count:,} that each go to one random stream of {streams:,}; and those lost"

    def run(self, trial: Run) -> Figures:
        """Measure the messages per second, from the first call to the last arrival, and the number of lost ones."""
        started = trial.put(f"/each?n={self.count}&clients={trial.streams}", PATIENCE)
        report = trial.fleet.expect_in_all(self.count, PATIENCE, QUIET)
        rate, lost = self.columns(trial.streams)
        missing = self.count - report["received"]
        return {rate: Figure(_per_second(report, started)), lost: Figure(missing), WRONG: _wrong(report)}


def _per_second(report: Report, started: float) -> float:
    took = (report["last_arrival"] or started) - started
    return report["received"] / took if took > 0 else float("nan")


def _wrong(report: Report) -> Figure:
    return Figure(report["doubles"] + report["out_of_order"] + report["ended"] + report["refused"])
