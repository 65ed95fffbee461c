"""Four workers on one log under load: ``python -m benchmarks.workers [--log sqlite] [--streams 2000] [--rate 1000]``.

gunicorn runs four workers of its default class, with the same number of streams for each zone. Two other processes send
numbered messages to the zones at a steady rate: first while nothing happens, then while workers are killed and deploys
replace them. Clients behave as browsers do. At the end each stream has each message of its zone once.

The lag is the time from the call of ``broadcast`` to the delivery in a worker. Each worker follows all messages.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import lags
from benchmarks.children import Child, go, line, python
from benchmarks.fleet import Fleet, Report
from benchmarks.logs import SHARED
from benchmarks.machine import machine
from benchmarks.table import table
from ssehub import Hub, LogError
from ssehub.log.urls import open_log
from ssehub.tools.bench.target import raise_file_limit
from tests.servers import answers, children, free_port, process
from tests.streams import until

MODULE = "benchmarks.workers"
WORKERS = 4
SENDERS = 2
#: Seconds to wait for all streams to connect, and for the last messages.
PATIENCE = 60.0
#: Seconds without a message after which no more are waited for. Clients reconnect after two to four seconds.
QUIET = 10.0


@dataclass(frozen=True)
class Load:
    """The load, and the number of streams of each zone."""

    log: str
    streams: int
    rate: float
    seconds: float
    audience: int
    size: int

    @property
    def zones(self) -> int:
        """The number of zones."""
        return max(SENDERS, self.streams // self.audience)


def send(url: str, number: int, zones: int, per_second: float, seconds: float, size: int) -> None:
    """Send numbered messages to this sender's zones in turn. Print their numbers, and the milliseconds of each call."""
    mine = range(number, zones, SENDERS)
    sent = dict.fromkeys(mine, 0)
    took: list[float] = []
    refused = 0
    with contextlib.closing(Hub(open_log(url, size=size))) as hub:
        hub.cursor()
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        for count in range(int(per_second * seconds)):
            time.sleep(max(0.0, began + count / per_second - time.monotonic()))
            zone = mine[count % len(mine)]
            now = time.monotonic()
            try:
                hub.broadcast(f"{sent[zone]} {now:.6f} ".ljust(100, "x"), zone=f"z{zone}")
                sent[zone] += 1
            except LogError:
                refused += 1
            took.append((time.monotonic() - now) * 1000)
        print(json.dumps({"sent": sent, "took": took, "refused": refused, "seconds": time.monotonic() - began}))


class Faults:
    """Kills workers and deploys, in a thread, until it is closed.

    :param server: gunicorn.
    :param pause: seconds between two faults.
    """

    def __init__(self, server: subprocess.Popen[bytes], pause: float) -> None:
        self.counts: Counter[str] = Counter({"kills": 0, "deploys": 0})
        self._server = server
        self._pause = pause
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._pause):
            if self.counts.total() % 3 == 1:
                self._server.send_signal(signal.SIGHUP)
                self.counts["deploys"] += 1
            elif workers := sorted(children(self._server)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(random.choice(workers), signal.SIGKILL)
                    self.counts["kills"] += 1


@contextlib.contextmanager
def serving(load: Load, url: str, noted: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run gunicorn with its default worker class. Yield its port, and its process."""
    port = free_port()
    command = (sys.executable, "-m", "gunicorn", "-w", str(WORKERS), "-b", f"127.0.0.1:{port}", "--log-level",
               "critical", "--no-control-socket", "benchmarks.lagapp:application")  # fmt: skip
    environment = {"LOG_URL": url, "LOG_SIZE": str(load.size), "ZONES": str(load.zones), "LAGS": str(noted)}
    with process(*command, **environment) as server:  # type: ignore[arg-type]
        until(lambda: answers(port, "/"), "gunicorn to answer", PATIENCE)
        yield port, server


def run(load: Load, pause: float | None) -> dict[str, str]:
    """Measure one case.

    :param pause: seconds between two faults; None for no faults.
    """
    with tempfile.TemporaryDirectory() as text, contextlib.ExitStack() as stack:
        folder = Path(text)
        noted = folder / "lags"
        noted.mkdir()
        url = stack.enter_context(SHARED[load.log](folder))
        port, server = stack.enter_context(serving(load, url, noted))
        fleet = stack.enter_context(Fleet())
        fleet.start(f"http://127.0.0.1:{port}/events?n={{n}}", load.streams, first=0)
        assert fleet.wait_connected(PATIENCE)["complete"], "not all streams have connected"
        rate = load.rate / SENDERS
        senders = [
            stack.enter_context(python(MODULE, "send", url, n, load.zones, rate, load.seconds, load.size))
            for n in range(SENDERS)
        ]
        for sender in senders:
            assert line(sender) == "ready\n"
        with contextlib.ExitStack() as disturbed:
            faults = None if pause is None else Faults(server, pause)
            if faults is not None:
                disturbed.callback(faults.close)
            told = _sent(senders)
        members = Counter(n % load.zones for n in range(load.streams))
        expected = sum(members[int(zone)] * count for one in told for zone, count in one["sent"].items())
        report = fleet.expect_in_all(expected, PATIENCE, QUIET)
        counts = faults.counts if faults is not None else Counter()
        return _judge(expected, told, report, lags.read(noted), counts)


def _sent(senders: list[Child]) -> list[dict[str, Any]]:
    for sender in senders:
        go(sender)
    return [json.loads(line(sender)) for sender in senders]


def _judge(
    expected: int, told: list[dict[str, Any]], report: Report, late: list[float], counts: Counter[str]
) -> dict[str, str]:
    took = sorted(milliseconds for one in told for milliseconds in one["took"])
    messages = sum(sum(one["sent"].values()) for one in told)
    return {
        "messages/s": f"{messages / max(one['seconds'] for one in told):,.0f}",
        "deliveries": f"{expected:,}",
        "kills": str(counts["kills"]),
        "deploys": str(counts["deploys"]),
        "refused": str(sum(one["refused"] for one in told)),
        "lost": str(expected - report["received"]),
        "doubled": str(report["doubles"] + report["out_of_order"]),
        "gaps": str(report["gaps"]),
        "append p50 ms": _rank(took, 0.5),
        "append p99 ms": _rank(took, 0.99),
        "lag p50 ms": _rank(late, 0.5, 1000),
        "lag p99 ms": _rank(late, 0.99, 1000),
        "arrival p50 ms": f"{1000 * report['latency'].get('p50', 0):.1f}",
    }


def _rank(values: list[float], share: float, unit: float = 1.0) -> str:
    return f"{values[min(len(values) - 1, int(len(values) * share))] * unit:.2f}" if values else ""


def main() -> None:
    """Measure both cases and print a table, or run as one of the senders."""
    if sys.argv[1:2] == ["send"]:
        url, number, zones, per_second, seconds, size = sys.argv[2:]
        send(url, int(number), int(zones), float(per_second), float(seconds), int(size))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", choices=sorted(SHARED), default="sqlite")
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=1000.0, help="messages per second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--audience", type=int, default=4, help="streams of each zone")
    parser.add_argument("--size", type=int, default=30_000, help="of the log")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds between two faults; every third is a deploy")
    given = parser.parse_args()
    load = Load(given.log, given.streams, given.rate, given.seconds, given.audience, given.size)
    raise_file_limit(2 * load.streams + 100)
    found = {"calm": run(load, None), "kills and deploys": run(load, given.pause)}
    print(f"{machine()}; {load.log}, {load.streams:,} streams, {load.rate:g} messages/s for {load.seconds:g} s\n")
    print(table([["", *found["calm"]], *([case, *cells.values()] for case, cells in found.items())]))


if __name__ == "__main__":
    main()
