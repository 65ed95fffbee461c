"""The effects of a restart on clients: ``python -m benchmarks.restart [--streams 1000] [--rounds 3]``.

The streams are on gunicorn with one worker, with a log that survives the restart and messages at a steady rate. The
server is either told to stop (SIGTERM), and a new one is started on the same address when it has ended; or it is told
to reload (SIGHUP). Each case is run with and without ``-c python:ssehub.integrations.gunicorn``. Clients behave as
browsers do: they reconnect after the time that the stream has sent, with their last event id, and on their previous
connection if the server has left it open.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

from benchmarks.fleet import read_number
from benchmarks.hubapp import ZONE
from benchmarks.machine import machine
from benchmarks.table import table
from ssehub import Hub, RedisLog
from ssehub.tools.bench.loop import Loop
from ssehub.tools.bench.subscribers import Subscribers
from ssehub.tools.bench.tally import Tally
from ssehub.tools.bench.target import BenchError, Target, raise_file_limit
from tests.redis_server import RedisServer
from tests.servers import ROOT, children, free_port

HOOK = ("-c", "python:ssehub.integrations.gunicorn")
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP}
WORKERS = ("sync", "gthread", "gevent")
#: Length in seconds of the window in which simultaneous reconnections are counted.
CLUMP = 0.1
#: Seconds of sending before the signal, and after all streams are open again.
STEADY = 2.0
#: Seconds after which a restart is evaluated even if it is not complete.
PATIENCE = 120.0


@dataclass(frozen=True)
class Case:
    """A server, and how it is restarted."""

    worker: str
    signal: str
    hook: bool


@dataclass(frozen=True)
class Result:
    """The results. Times are in seconds from the signal."""

    gone: float  # until the server, or with SIGHUP the old worker, has ended
    back: float  # until the last stream is open again
    clump: float  # maximum number of attempts to connect within a tenth of a second
    failed: float  # attempts for which no server accepted the connection
    late: float  # the longest time from a message to its last arrival
    sent: float
    missed: float  # messages that were sent and have not arrived, over all streams
    doubled: float
    gaps: float


class Server:
    """A gunicorn that is restarted on its address."""

    def __init__(self, case: Case, streams: int, redis_url: str, retry: int = 2000) -> None:
        self.port = free_port()
        options = [
            "-k",
            case.worker,
            "-w",
            "1",
            "-b",
            f"127.0.0.1:{self.port}",
            "--worker-connections",
            f"{streams + 100}",
        ]
        options += ["--threads", f"{streams + 20}"] if case.worker == "gthread" else []
        options += ["--log-level", "critical", "--no-control-socket", *(HOOK if case.hook else ())]
        self._command = [sys.executable, "-m", "gunicorn", *options, "benchmarks.hubapp:application"]
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": redis_url, "RETRY": f"{retry}"}
        self.start()

    def start(self) -> None:
        """Start the server, without waiting until it is ready."""
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def close(self) -> None:
        """Kill the server and its workers."""
        for pid in (*_workers(self.process), self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Restart:
    """One restart. Everything happens in one thread, including the sending."""

    def __init__(
        self, case: Case, server: Server, redis_url: str, streams: int, rate: float, steady: float = STEADY
    ) -> None:
        self._case = case
        self._server = server
        self._streams = streams
        self._rate = rate
        self._steady = steady
        self._hub = Hub(RedisLog(redis_url))
        self._loop = Loop()
        self._tally = Tally(read_number)
        self._subscribers = Subscribers(self._loop, self._tally.take, at_once=streams, keep=True)
        self._sent = 0
        self._sending = False

    def run(self) -> Result:
        """Connect, restart, and evaluate."""
        target = self._target()
        self._subscribers.add(target, self._streams, first=0)
        self._turn(lambda: self._subscribers.open == self._streams, "the streams to connect")
        self._turn_for(0.5)
        self._sending = True
        self._send()
        self._turn_for(self._steady)
        told = time.monotonic()
        gone = self._restart()
        self._turn(
            lambda: all(one.opened > 1 and one.is_open for one in self._subscribers.streams), "the streams to be back"
        )
        self._turn_for(self._steady)
        self._sending = False
        self._turn(lambda: not self._missing(), "", 10.0)
        self._turn_for(0.5)
        return self._judge(told, gone)

    def close(self) -> None:
        """Release everything except the server."""
        self._subscribers.close()
        self._loop.close()
        self._hub.close()

    def _target(self) -> Target:
        deadline = time.monotonic() + 20.0
        while True:
            try:
                return Target(f"http://127.0.0.1:{self._server.port}/events")
            except BenchError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _restart(self) -> float:
        """Restart the server, and return the time at which the old one had ended."""
        process, old = self._server.process, _workers(self._server.process)
        process.send_signal(SIGNALS[self._case.signal])
        if self._case.signal == "SIGHUP":
            self._turn(lambda: not old & _workers(process), "the old worker to go")
            return time.monotonic()
        self._turn(lambda: process.poll() is not None, "the server to go")
        gone = time.monotonic()
        self._server.start()
        return gone

    def _send(self) -> None:
        """Send a message, and schedule the next one."""
        if self._sending:
            self._hub.broadcast(f"{self._sent} {time.monotonic():.6f}", zone=ZONE)
            self._sent += 1
            self._loop.call_at(time.monotonic() + 1 / self._rate, self._send)

    def _turn(self, condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                if what:
                    raise RuntimeError(
                        f"timed out waiting for {what}: {self._subscribers.failures} {self._subscribers.refusals}"
                    )
                return
            self._turn_for(0.01)

    def _turn_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._loop.turn(left)

    def _missing(self) -> int:
        self._subscribers.look_at_all()
        orders = [stream.order("") for stream in self._subscribers.streams]
        return sum(self._sent - (one.next or 0) + len(one.missing) for one in orders)

    def _judge(self, told: float, gone: float) -> Result:
        orders = [stream.order("") for stream in self._subscribers.streams]
        comings = [moment for moment in self._subscribers.comings if moment > told]
        return Result(
            gone=gone - told,
            back=max(comings) - told,
            clump=largest((moment for moment in self._subscribers.attempts if moment > told), CLUMP),
            failed=sum(self._subscribers.failures.values()),
            late=self._tally.latency.rank(1.0),
            sent=self._sent,
            missed=self._missing(),
            doubled=sum(one.doubles + one.late for one in orders),
            gaps=self._tally.gaps,
        )


def _workers(process: subprocess.Popen[bytes]) -> set[int]:
    try:
        return children(process)
    except FileNotFoundError:
        return set()


def largest(moments: Iterable[float], window: float) -> int:
    """Return the maximum number of times within a window of this many seconds."""
    most = 0
    inside: deque[float] = deque()
    for moment in sorted(moments):
        inside.append(moment)
        while inside[0] < moment - window:
            inside.popleft()
        most = max(most, len(inside))
    return most


def run(case: Case, streams: int, rate: float) -> Result:
    """Restart a new server once.

    :param rate: messages per second.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        redis = RedisServer(Path(folder))
        stack.callback(redis.close)
        server = Server(case, streams, redis.url)
        stack.callback(server.close)
        restart = Restart(case, server, redis.url, streams, rate)
        stack.callback(restart.close)
        result = restart.run()
    print(case, result, file=sys.stderr, flush=True)
    return result


HEAD = ("worker", "signal", "with the hook", "gone s", "all back s", "most at once", "refused", "longest wait s",
        "sent", "missed", "doubled", "gaps")  # fmt: skip


def row(case: Case, results: Sequence[Result]) -> list[str]:
    """Return one line of the table: medians, but sums of everything that went wrong."""
    columns = {field.name: [getattr(one, field.name) for one in results] for field in fields(Result)}
    middle = {name: median(values) for name, values in columns.items()}
    return [
        case.worker, case.signal, "yes" if case.hook else "no", f"{middle['gone']:.2f}", f"{middle['back']:.1f}",
        f"{middle['clump']:,.0f}", f"{middle['failed']:,.0f}", f"{middle['late']:.1f}", f"{middle['sent']:,.0f}",
        *(f"{sum(columns[name]):,.0f}" for name in ("missed", "doubled", "gaps")),
    ]  # fmt: skip


def main() -> None:
    """Run all cases in turn, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.restart", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=10.0, help="messages per second")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of")
    parser.add_argument("--worker", choices=(*WORKERS, "both"), default="both")
    parser.add_argument("--hook", choices=("yes", "no", "both"), default="both")
    options = parser.parse_args()
    raise_file_limit(2 * options.streams + 100)
    workers = WORKERS if options.worker == "both" else (options.worker,)
    hooks = {"yes": (True,), "no": (False,), "both": (False, True)}[options.hook]
    cases = [Case(*one) for one in itertools.product(workers, SIGNALS, hooks)]
    found: dict[Case, list[Result]] = {}
    for _ in range(options.rounds):
        for case in cases:
            found.setdefault(case, []).append(run(case, options.streams, options.rate))
    print(f"{machine()}; {options.streams:,} streams, {options.rate:g} messages/s, {options.rounds} rounds\n")
    print(table([HEAD, *(row(case, results) for case, results in found.items())]))


if __name__ == "__main__":
    main()
