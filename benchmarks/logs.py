"""The logs beside each other: ``python -m benchmarks.logs [--seconds 5]``.

Processes append as fast as they can, once one process and once four. Then one process appends 100 messages a second,
and another follows: the latency is the time from the call of ``broadcast`` to the delivery in the other process. A log
in memory has only one process. A log whose package or server is missing is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.children import go, line, python
from benchmarks.machine import machine
from benchmarks.table import table
from ssehub import Hub
from ssehub.log import Entry
from ssehub.log.urls import open_log

MODULE = "benchmarks.logs"
END = "end"
SIZE = 100  # bytes of a message
PER_SECOND = 100.0  # messages, for the latency in another process
SENDERS = 4


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    """Yield the URL of a log in a file."""
    yield f"sqlite:{folder / 'hub.db'}"


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run a Redis server, and yield its URL."""
    from tests.redis_server import RedisServer

    with contextlib.closing(RedisServer(folder)) as server:
        yield server.url


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL server, and yield its URL."""
    from tests.postgres_server import PostgresServer

    with contextlib.closing(PostgresServer()) as server:
        yield server.dsn()


#: The logs that processes share, with a function that starts the store in a folder and yields the URL.
SHARED: dict[str, Callable[[Path], contextlib.AbstractContextManager[str]]] = {
    "sqlite": sqlite,
    "redis": redis,
    "postgresql": postgresql,
}


def send(url: str, per_second: float, seconds: float, wait: Callable[[], object]) -> dict[str, Any]:
    """Append messages for some seconds. Return their number, the seconds, and the microseconds of each append.

    :param per_second: the rate; 0 for as fast as possible.
    :param wait: called when the log is open; returns when the others are ready, too.
    """
    with contextlib.closing(Hub(open_log(url))) as hub:
        hub.cursor()
        wait()
        took = []
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            hub.broadcast(f"{time.monotonic_ns()}".ljust(SIZE))
            took.append(round((time.monotonic() - now) * 1e6))
            if per_second:
                time.sleep(max(0.0, began + len(took) / per_second - time.monotonic()))
        return {"count": len(took), "seconds": time.monotonic() - began, "took": took}


def follow(url: str) -> None:
    """Follow until the last message, and print the latency of each in milliseconds."""
    late: list[float] = []
    ended = threading.Event()

    def deliver(entry: Entry) -> int:
        now, data = time.monotonic_ns(), entry.packet.message.data or ""
        if data == END:
            ended.set()
        else:
            late.append((now - int(data)) / 1e6)
        return 0

    with contextlib.closing(open_log(url)) as log:
        log.start(deliver, lambda end, commands: None)
        print("ready", flush=True)
        ended.wait()
        print(json.dumps(late))


def append(url: str, senders: int, seconds: float) -> list[str]:
    """Measure appends by some processes as fast as possible: the cells appends/s, p50 and p99."""
    with ExitStack() as stack:
        processes = [stack.enter_context(python(MODULE, "send", url, 0, seconds)) for _ in range(senders)]
        told = _sent(processes)
    return _speed(told)


def arrive(url: str, seconds: float) -> list[str]:
    """Measure the latency in another process: the cells p50 and p99."""
    with python(MODULE, "follow", url) as follower:
        assert line(follower) == "ready\n"
        with python(MODULE, "send", url, PER_SECOND, seconds) as sender:
            (told,) = _sent([sender])
        with contextlib.closing(Hub(open_log(url))) as hub:
            hub.broadcast(END)
        late = sorted(json.loads(line(follower)))
    assert len(late) == told["count"], f"{len(late)} of {told['count']} messages have arrived"
    return [f"{late[len(late) // 2]:.2f}", f"{late[len(late) * 99 // 100]:.2f}"]


def _sent(processes: list[Any]) -> list[dict[str, Any]]:
    for process in processes:
        assert line(process) == "ready\n"
    for process in processes:
        go(process)
    return [json.loads(line(process)) for process in processes]


def _speed(told: list[dict[str, Any]]) -> list[str]:
    took = sorted(microseconds for one in told for microseconds in one["took"])
    rate = sum(one["count"] / one["seconds"] for one in told)
    return [f"{rate:,.0f}", f"{took[len(took) // 2]:,}", f"{took[len(took) * 99 // 100]:,}"]


def measure(name: str, seconds: float) -> list[str]:
    """Return the row of a log. Raise ImportError or an exception of pytest if it cannot run here."""
    if name == "memory":
        return [name, *_speed([send("memory:", 0, seconds, lambda: None)]), "", "", "", "", ""]
    with tempfile.TemporaryDirectory() as folder, SHARED[name](Path(folder)) as url:
        open_log(url)
        return [name, *append(url, 1, seconds), *append(url, SENDERS, seconds), *arrive(url, seconds)]


HEAD = ["log", "1 process: appends/s", "p50 us", "p99 us", f"{SENDERS} processes: appends/s", "p50 us", "p99 us",
        f"other process at {PER_SECOND:g}/s: p50 ms", "p99 ms"]  # fmt: skip


def main() -> None:
    """Measure all logs and print a table, or run as one of the processes."""
    if sys.argv[1:2] == ["send"]:
        url, per_second, seconds = sys.argv[2:]
        told = send(url, float(per_second), float(seconds), lambda: (print("ready", flush=True), sys.stdin.readline()))
        print(json.dumps(told))
        return
    if sys.argv[1:2] == ["follow"]:
        follow(sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", nargs="+", choices=("memory", *SHARED), default=["memory", *SHARED])
    options = parser.parse_args()
    rows = [HEAD]
    for name in options.only:
        try:
            rows.append(measure(name, options.seconds))
        except (ImportError, ValueError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
        except BaseException as error:
            if type(error).__name__ not in ("Skipped", "Failed"):  # raised by tests.servers.missing
                raise
            print(f"{name} is left out: {error}", file=sys.stderr)
    print(f"{machine()}\n")
    print(table(rows))


if __name__ == "__main__":
    main()
