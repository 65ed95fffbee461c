"""How fast one server process brings messages to many streams: ssehub against the application people paste today.

``python -m benchmarks.fanout [--quick] [--worker gthread|gevent|both] [--rounds N]`` from the root of the repository.
Both applications run in turn, under the same gunicorn, against the same fleet, several rounds, and medians are printed.
On a busy machine the rates are low and the ratios hold.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import math
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

from benchmarks.fleet import Fleet, Report
from benchmarks.machine import machine
from benchmarks.table import table
from ssehub.bench import raise_file_limit

ROOT = Path(__file__).resolve().parent.parent
APPLICATIONS = {"naive": "benchmarks.naive:application", "ssehub": "benchmarks.hubapp:application"}
WORKERS = ("gthread", "gevent")
SIZE = 100  # bytes of a message
NEVER = math.nan


@dataclass(frozen=True)
class Load:
    """What is published, and to how many streams; without a rate it is a burst."""

    streams: int
    events: int
    per_second: float | None = None
    patience: float = 60.0  # seconds after the publisher's return; what has not arrived then is reported as such

    def __str__(self) -> str:
        how = f"burst of {self.events:,}" if self.per_second is None else f"{self.per_second:g}/s"
        return f"{how} to {self.streams:,}"

    @property
    def seconds(self) -> float:
        """How long publishing is to take."""
        return 0.0 if self.per_second is None else self.events / self.per_second

    @property
    def path(self) -> str:
        """The request that makes the server publish it."""
        if self.per_second is None:
            return f"/burst?n={self.events}&size={SIZE}"
        return f"/rate?per_second={self.per_second}&seconds={self.seconds}&size={SIZE}"


FULL = (Load(100, 2000), Load(1000, 200), Load(1000, 500, 50, patience=15.0))
QUICK = (Load(100, 500, patience=20.0), Load(300, 100, patience=20.0), Load(300, 100, 50, patience=5.0))


@dataclass(frozen=True)
class Result:
    """What came of a load; a rate of arrivals in 1/s, latencies in ms, processor time of the server in us."""

    rate: float
    p50: float
    p99: float
    cpu_per_delivery: float
    arrived: float  # share of what was due
    wrong: float  # skipped, double or out of order, and gaps
    fleet_cpu: float  # seconds of processor the fleet took per second of arrivals, parsing afterwards included


class Server:
    """A gunicorn with one worker on a free port of the loopback; a context manager."""

    def __init__(self, application: str, worker: str, streams: int) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        options = ["-k", worker, "-w", "1", "--worker-connections", str(streams + 100)]
        options += ["--bind", f"127.0.0.1:{self.port}"]
        options += ["--threads", str(streams + 20)] if worker == "gthread" else []
        # A naive application starves the worker's own heartbeat, and its threads are still blocked at the end.
        options += ["--timeout", "300", "--graceful-timeout", "1", "--log-level", "warning", "--no-control-socket"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *options, application], cwd=ROOT, stdout=self._log, stderr=self._log
        )

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The id of gunicorn's own process."""
        return self._process.pid

    def ask(self, method: str, path: str, timeout: float) -> dict[str, Any]:
        """Return the JSON that answers a request.

        :raises OSError: if there is no answer in time.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def cpu(self) -> float:
        """Return the seconds of processor that the worker took so far; not a number if it is too busy to answer."""
        try:
            return float(self.ask("GET", "/stats", 5.0)["cpu"])
        except OSError:
            return NEVER

    def wait(self, timeout: float) -> None:
        """Wait until it answers.

        :raises RuntimeError: with the server's own words, if it ends or the time is over.
        """
        deadline = time.monotonic() + timeout
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self.ask("GET", "/stats", 1.0)
                return
            except OSError:
                time.sleep(0.05)
        self._log.seek(0)
        raise RuntimeError("the server did not start: " + self._log.read().decode(errors="replace"))

    def close(self) -> None:
        """End it, by force if need be."""
        self._process.terminate()
        try:
            self._process.wait(15.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Server:
        try:
            self.wait(20.0)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def measure(server: Server, fleet: Fleet, load: Load) -> Result:
    """Put a load on a server whose streams are connected."""
    fleet.reset()
    before = server.cpu()
    started = time.monotonic()
    try:
        answer = server.ask("POST", load.path, load.seconds * 2 + load.patience)
        started = float(answer["started"])
    except OSError:
        pass  # its own readers starve it; what has arrived still counts
    report = fleet.expect(load.events, load.patience)
    return judge(load, report, started, server.cpu() - before)


def judge(load: Load, report: Report, started: float, cpu: float) -> Result:
    """Make figures of what the fleet saw."""
    last = report["last_arrival"] or started
    took = max(last - started, load.seconds)
    latency = report["latency"]
    wrong = report["missing"] + report["doubles"] + report["out_of_order"] + report["gaps"] + report["ended"]
    return Result(
        rate=report["received"] / took if took else 0.0,
        p50=latency.get("p50", NEVER) * 1000,
        p99=latency.get("p99", NEVER) * 1000,
        cpu_per_delivery=cpu / report["received"] * 1e6 if report["received"] else NEVER,
        arrived=report["received"] / (load.events * load.streams),
        wrong=wrong,
        fleet_cpu=report["cpu"] / took if took else 0.0,
    )


def run(application: str, worker: str, load: Load) -> Result:
    """Put a load on a fresh server: what an earlier one left under way would be counted with this one."""
    with Server(APPLICATIONS[application], worker, load.streams) as server, Fleet() as fleet:
        fleet.start(f"{server.url}/events", load.streams, first=1)
        report = fleet.wait_connected(60.0)
        if not report["complete"]:
            raise RuntimeError(f"{application} on {worker}: {report['connected']} of {load.streams} streams connected")
        result = measure(server, fleet, load)
    say(worker, application, load, result)
    return result


def say(worker: str, application: str, load: Load, result: Result) -> None:
    """Tell whoever waits for the table how it goes."""
    named = zip(fields(result), astuple(result), strict=True)
    figures = " ".join(f"{field.name}={value:.4g}" for field, value in named)
    print(f"{worker} {application} {load}: {figures}", file=sys.stderr, flush=True)


def middle(results: Sequence[Result]) -> Result:
    """Return the medians of several rounds, and all that went wrong in them."""
    columns = {field.name: [getattr(one, field.name) for one in results] for field in fields(Result)}
    wrong = sum(columns.pop("wrong"))
    known = {name: [value for value in values if not math.isnan(value)] for name, values in columns.items()}
    return Result(wrong=wrong, **{name: median(values) if values else NEVER for name, values in known.items()})


HEAD = ("worker", "messages to streams", "application", "deliveries/s", "ratio", "p50 ms", "p99 ms", "CPU us each",
        "arrived", "wrong")  # fmt: skip


def row(worker: str, load: Load, application: str, result: Result, naive: Result | None) -> Sequence[str]:
    """Write one line of the table."""
    ratio = f"{result.rate / naive.rate:.1f}" if naive is not None and naive.rate else "1"
    figures = (f"{result.p50:,.0f}", f"{result.p99:,.0f}", f"{result.cpu_per_delivery:.1f}")
    share = f"{math.floor(result.arrived * 1000) / 10:g} %"
    return (worker, str(load), application, f"{result.rate:,.0f}", ratio, *figures, share, f"{result.wrong:.0f}")


def bench(worker: str, loads: Sequence[Load], rounds: int) -> list[Sequence[str]]:
    """Run all loads on one kind of worker, the applications in turn; return lines of the table."""
    found: dict[tuple[Load, str], list[Result]] = {}
    for _ in range(rounds):
        for load, application in itertools.product(loads, APPLICATIONS):
            found.setdefault((load, application), []).append(run(application, worker, load))
    lines = []
    for load in loads:
        results = {application: middle(found[load, application]) for application in APPLICATIONS}
        for application, result in results.items():
            naive = None if application == "naive" else results["naive"]
            lines.append(row(worker, load, application, result, naive))
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small loads, one round: does it run at all")
    parser.add_argument("--worker", choices=(*WORKERS, "both"), default="both")
    parser.add_argument("--rounds", type=int, help="rounds to take the median of (3; with --quick 1)")
    options = parser.parse_args(arguments)
    raise_file_limit()
    rounds = options.rounds or (1 if options.quick else 3)
    lines: list[Sequence[str]] = [HEAD]
    for worker in WORKERS if options.worker == "both" else [options.worker]:
        lines += bench(worker, QUICK if options.quick else FULL, rounds)
    print(f"{machine()}; {rounds} rounds\n\n{table(lines)}")


if __name__ == "__main__":
    main()
