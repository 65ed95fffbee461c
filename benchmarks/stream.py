"""The throughput of one stream on Redis: ``python -m benchmarks.stream [--seconds 5]``.

Publishers append as fast as they can, or at a rate. Workers only follow, so that only the log is measured. The latency
is the time from the call of ``broadcast`` to the delivery in the last of the workers. Everything runs on one machine,
with a process for each publisher and worker and for the server.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.children import go, line, python
from benchmarks.table import table
from ssehub import Hub, RedisLog
from ssehub.log import Entry
from tests.redis_server import RedisServer

MODULE = "benchmarks.stream"
END = "end"
SIZE = 100  # bytes of a message


@dataclass(frozen=True)
class Load:
    """The publishers and workers of a measurement."""

    publishers: int
    workers: int
    #: Rate of each publisher; None for as fast as possible.
    per_second: float | None = None
    partitions: int = 1
    #: Whether each worker follows only its share of the zones.
    shared_out: bool = False


LOADS = [
    Load(1, 0),
    Load(4, 0),
    Load(1, 4, 100.0),
    Load(1, 4, 1000.0),
    Load(1, 4),
    Load(4, 4),
    Load(4, 4, partitions=4),
    Load(4, 4, partitions=4, shared_out=True),
]


def zone_of(number: int, partitions: int) -> str:
    """Return the name of a zone in a partition."""
    log = RedisLog("redis://", partitions=partitions)
    names = (f"zone {n}" for n in range(100_000))
    return next(name for name in names if log.partitions((name,)) == (number % partitions,))


def publish(url: str, partitions: int, number: int, per_second: float, seconds: float) -> None:
    """Append messages to this publisher's zone for some seconds, and print their number."""
    hub = Hub(RedisLog(url, partitions=partitions, size=1_000_000))
    zone = zone_of(number, partitions)
    sys.stdin.readline()
    began, count = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        hub.broadcast(f"{number} {count} {time.monotonic_ns()}".ljust(SIZE), zone=zone)
        count += 1
        if per_second:
            time.sleep(max(0.0, began + count / per_second - time.monotonic()))
    print(json.dumps({"count": count, "seconds": time.monotonic() - began}))


def follow(url: str, partitions: int, zones: str) -> None:
    """Follow until the last message of each zone, and print the arrival times."""
    came: dict[str, int] = {}
    ended = threading.Semaphore(0)
    used: list[float] = []

    def deliver(entry: Entry) -> int:
        data = entry.packet.message.data or ""
        if data == END:
            ended.release()
        else:
            came[data.rstrip()] = time.monotonic_ns()
            used[:] = [*used[:1], time.process_time()]
        return 0

    log = RedisLog(url, partitions=partitions, size=1_000_000)
    log.start(deliver, lambda end, commands: None)
    log.open(zones.split(","))
    used.append(time.process_time())
    print("there", flush=True)
    for _ in zones.split(","):
        ended.acquire()
    print(json.dumps({"cpu": used[-1] - used[0], "came": came}))
    log.close()


def run(load: Load, seconds: float) -> dict[str, Any]:
    """Measure one load."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = RedisServer(Path(folder))
        stack.callback(server.close)
        zones = [zone_of(n, load.partitions) for n in range(load.partitions)]
        workers = []
        for n in range(load.workers):
            mine = zones[n % len(zones)] if load.shared_out else ",".join(zones)
            workers.append(stack.enter_context(python(MODULE, "follow", server.url, load.partitions, mine)))
        for worker in workers:
            assert line(worker) == "there\n"
        publishers = [
            stack.enter_context(
                python(MODULE, "publish", server.url, load.partitions, n, load.per_second or 0, seconds)
            )
            for n in range(load.publishers)
        ]
        before = _cpu(server)
        time.sleep(1.0)  # until all have started
        for publisher in publishers:
            go(publisher)
        sent = [json.loads(line(publisher)) for publisher in publishers]
        hub = Hub(RedisLog(server.url, partitions=load.partitions, size=1_000_000))
        for zone in zones:
            hub.broadcast(END, zone=zone)
        told = [json.loads(line(worker)) for worker in workers]
        used = _cpu(server) - before
        hub.close()
    return _judge(load, sent, told, used)


def _cpu(server: RedisServer) -> float:
    info: Any = server.client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def _judge(load: Load, sent: list[dict[str, Any]], told: list[dict[str, Any]], used: float) -> dict[str, Any]:
    count = sum(one["count"] for one in sent)
    last: dict[str, int] = {}
    for one in told:
        for data, moment in one["came"].items():
            last[data] = max(moment, last.get(data, 0))
    late = sorted((moment - int(data.split()[2])) / 1e6 for data, moment in last.items())
    times = [moment for one in told for moment in one["came"].values()]
    seconds = median(one["seconds"] for one in sent)
    return {
        "appended": count / seconds,
        "followed": count / ((max(times) - min(times)) / 1e9) if times else 0.0,
        "p50": late[len(late) // 2] if late else 0.0,
        "p99": late[len(late) * 99 // 100] if late else 0.0,
        "missing": count * (1 if load.shared_out else len(told)) - sum(len(one["came"]) for one in told),
        "worker": median(one["cpu"] / len(one["came"]) for one in told) * 1e6 if told else 0.0,
        "server": used / count * 1e6,
    }


def main() -> None:
    """Measure all loads and print a table, or run as one of the processes."""
    if sys.argv[1:2] == ["publish"]:
        url, partitions, number, per_second, seconds = sys.argv[2:]
        publish(url, int(partitions), int(number), float(per_second), float(seconds))
        return
    if sys.argv[1:2] == ["follow"]:
        follow(sys.argv[2], int(sys.argv[3]), sys.argv[4])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    rows = [["publishers", "workers", "partitions", "appended/s", "followed/s", "p50 ms", "p99 ms", "missing",
             "worker us", "server us"]]  # fmt: skip
    for load in LOADS:
        got = run(load, options.seconds)
        rate = "" if load.per_second is None else f" at {load.per_second:g}/s"
        spread = " each one" if load.shared_out else ""
        rows.append([f"{load.publishers}{rate}", f"{load.workers}{spread}", f"{load.partitions}",
                     f"{got['appended']:,.0f}", f"{got['followed']:,.0f}", f"{got['p50']:.1f}", f"{got['p99']:.1f}",
                     f"{got['missing']}", f"{got['worker']:.0f}", f"{got['server']:.0f}"])  # fmt: skip
        print(rows[-1], file=sys.stderr)
    print(table(rows))


if __name__ == "__main__":
    main()
