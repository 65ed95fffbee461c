"""A fleet of SSE subscribers in a process of its own: it counts messages and checks their order on each stream.

It uses the subscribers of ``ssehub.tools.bench``, and a test or benchmark controls it. A message is expected to start
with ``<sequence number> <time.monotonic() of sending>``; this time is comparable across the processes of a machine. A
number with a leading ``@`` belongs to a second sequence, that of the messages to this client alone.
"""

from __future__ import annotations

import copy
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict

from ssehub.tools.bench.loop import READ, Loop
from ssehub.tools.bench.subscribers import Subscribers
from ssehub.tools.bench.tally import Numbered, Tally, ToldGap
from ssehub.tools.bench.target import Target, raise_file_limit

ROOT = Path(__file__).resolve().parent.parent
READ_SIZE = 1 << 16


class Report(TypedDict):
    """The observations since the last reset. Times are ``time.monotonic()``, latencies are in seconds."""

    complete: bool  # whether the condition of the wait was met in time
    connected: int  # streams whose first bytes have arrived, in total
    ended: int  # streams that the server or an error ended; they reconnect
    refused: int  # responses that were not a stream
    received: int  # without doubles
    least: int  # number received by the open, reading stream with the fewest messages
    missing: int  # numbers that were skipped and have not arrived later, without those after the last one received
    doubles: int
    out_of_order: int
    gaps: int
    gap_events: list[dict[str, Any]]  # the first few: stream, next (the next expected number), data (of the event)
    faults: list[str]  # descriptions of the first few
    first_arrival: float | None
    last_arrival: float | None
    latency: dict[str, float]  # p50, p90, p99, p99.9, max
    cpu: float  # seconds of processor time of the fleet itself


class FleetError(Exception):
    """The fleet's process died, did not respond, or got a command that it cannot execute."""


def read_number(data: str) -> Numbered | None:
    """Parse the data of a message."""
    number, stamp, *_ = [*data.split(" ", 2), "", ""]
    sender = number[:1] if number.startswith("@") else ""
    try:
        return Numbered(sender, int(number.removeprefix("@")), float(stamp))
    except ValueError:
        return None


class _Commanded:
    """The fleet's process: commands and streams in one loop and one thread."""

    def __init__(self, commands: int, replies: int) -> None:
        self._commands, self._replies = commands, replies
        self._command_line = b""
        self._running = True
        #: The condition of the current wait, and its deadline.
        self._wait: tuple[Callable[[], bool], float] | None = None
        self._loop = Loop()
        self._tally = Tally(read_number)
        self._subscribers = Subscribers(self._loop, self._tally.take)
        self._used = time.process_time()
        self._loop.watch(commands, READ, lambda events: self._read_commands())

    def run(self) -> None:
        """Serve until the controlling process is gone."""
        while self._running:
            self._loop.turn(0.01)
            if self._wait is not None and (self._wait[0]() or time.monotonic() >= self._wait[1]):
                self._subscribers.look_at_all()
                condition, self._wait = self._wait[0], None
                self._reply(condition())
        self._subscribers.close()

    def _read_commands(self) -> None:
        data = os.read(self._commands, READ_SIZE)
        self._running = bool(data)
        *lines, self._command_line = (self._command_line + data).split(b"\n")
        for line in lines:
            command = json.loads(line)
            getattr(self, "_on_" + command.pop("command"))(**command)

    def _reply(self, complete: bool = True) -> None:
        report = json.dumps(self._report(complete)).encode() + b"\n"
        while report:
            report = report[os.write(self._replies, report) :]

    def _on_start(self, *, url: str, n: int, paused: int, first: int | None, receive_buffer: int | None) -> None:
        target = Target(url)
        if "{n}" not in url:
            self._subscribers.add(target, n, first=first, paused=paused, receive_buffer=receive_buffer)
        else:
            for number in range(len(self._subscribers.streams), len(self._subscribers.streams) + n):
                own = copy.copy(target)
                own.path = target.path.replace("{n}", str(number))
                self._subscribers.add(own, 1, first=first, paused=paused > 0, receive_buffer=receive_buffer)
                paused -= 1
        self._reply()

    def _on_wait_connected(self, timeout: float) -> None:
        streams = self._subscribers.streams
        self._wait = (lambda: all(stream.is_open for stream in streams)), time.monotonic() + timeout

    def _on_expect(self, count: int, timeout: float) -> None:
        reading = [stream for stream in self._subscribers.streams if not stream.paused]
        self._wait = (lambda: all(s.order("").received >= count for s in reading)), time.monotonic() + timeout

    def _on_expect_in_all(self, count: int, timeout: float, quiet: float) -> None:
        tally, began = self._tally, time.monotonic()

        def is_over() -> bool:
            return tally.latency.count >= count or time.monotonic() > (tally.last_arrival or began) + quiet

        self._wait = is_over, began + timeout

    def _on_report(self) -> None:
        self._subscribers.look_at_all()
        self._reply()

    def _on_reset(self) -> None:
        self._subscribers.look_at_all()
        self._tally.reset()
        self._used = time.process_time()
        for stream in self._subscribers.streams:
            for order in stream.orders.values():
                order.reset()
        self._reply()

    def _on_resume_paused(self) -> None:
        for stream in self._subscribers.streams:
            if stream.paused:
                stream.resume()
        self._reply()

    def _report(self, complete: bool) -> Report:
        streams, tally, subscribers = self._subscribers.streams, self._tally, self._subscribers
        orders = [order for stream in streams for order in stream.orders.values()]
        return {
            "complete": complete,
            "connected": sum(bool(stream.opened) for stream in streams),
            "ended": sum(subscribers.ends.values()),
            "refused": sum(subscribers.refusals.values()),
            "received": sum(one.received for one in orders),
            "least": min((s.order("").received for s in streams if s.is_open and not s.paused), default=0),
            "missing": sum(len(one.missing) for one in orders),
            "doubles": sum(one.doubles for one in orders),
            "out_of_order": sum(one.late for one in orders),
            "gaps": tally.gaps,
            "gap_events": [ToldGap._asdict(gap) for gap in tally.gap_events],
            "faults": tally.faults,
            "first_arrival": tally.first_arrival,
            "last_arrival": tally.last_arrival,
            "latency": tally.latency.ranks(),
            "cpu": time.process_time() - self._used,
        }


class Fleet:
    """A fleet in a subprocess, for the controlling test or benchmark. Not thread-safe; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fleet"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._replies = b""

    def start(
        self, url: str, n: int, *, paused: int = 0, first: int | None = None, receive_buffer: int | None = None
    ) -> None:
        """Start connecting n more streams, and return at once.

        :param url: an http URL where somebody listens; ``{n}`` in it is the stream's number, from 0.
        :param paused: how many of them stop reading once they are connected (about the first bytes of the body).
        :param first: the sequence number that is due first; None: whatever comes first.
        :param receive_buffer: bytes of the kernel's receive buffer of the paused ones, so that they stall soon.
        """
        self._ask(10.0, command="start", url=url, n=n, paused=paused, first=first, receive_buffer=receive_buffer)

    def wait_connected(self, timeout: float = 30.0) -> Report:
        """Wait until each stream has received the first bytes of its body, which means that it is subscribed."""
        return self._ask(timeout, command="wait_connected", timeout=timeout)

    def expect(self, count: int, timeout: float) -> Report:
        """Wait until each stream that reads has received count messages since the last reset."""
        return self._ask(timeout, command="expect", count=count, timeout=timeout)

    def expect_in_all(self, count: int, timeout: float, quiet: float) -> Report:
        """Wait until all streams together have received count messages since the last reset.

        :param quiet: seconds without a message after which no more are waited for.
        """
        return self._ask(timeout, command="expect_in_all", count=count, timeout=timeout, quiet=quiet)

    def report(self) -> Report:
        """Return the observations so far."""
        return self._ask(10.0, command="report")

    def reset(self) -> None:
        """Reset the counts. The streams and their next expected numbers stay."""
        self._ask(10.0, command="reset")

    def resume_paused(self) -> None:
        """Make the paused streams read again."""
        self._ask(10.0, command="resume_paused")

    def close(self) -> None:
        """Close all streams and end the process. Idempotent."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, patience: float, /, **command: Any) -> Report:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
        except OSError as error:
            raise FleetError("the fleet's process is gone") from error
        # A busy fleet processes all received data before it responds, which may take some seconds beyond the deadline.
        return self._next_reply(time.monotonic() + patience + 30.0)

    def _next_reply(self, deadline: float) -> Report:
        assert self._process.stdout is not None
        while b"\n" not in self._replies:
            if not select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise FleetError("the fleet did not respond in time")
            data = os.read(self._process.stdout.fileno(), READ_SIZE)
            if not data:
                raise FleetError(f"the fleet's process ended with {self._process.wait()}")
            self._replies += data
        line, _, self._replies = self._replies.partition(b"\n")
        report: Report = json.loads(line)
        return report


if __name__ == "__main__":
    raise_file_limit()
    _Commanded(sys.stdin.fileno(), sys.stdout.fileno()).run()
