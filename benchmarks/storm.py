"""The storm: four workers on one log, with failures of every kind: ``python -m benchmarks.storm sqlite --minutes 5``.

Workers and publishers are killed, and deploys replace the workers. Connections are cut in the middle of an event.
Clients stall. The store of the log has failures of its own (:mod:`benchmarks.stores`); it is trimmed, rolled back to
an older copy, and deleted. At the end each accepted message has arrived once at each of its clients, or the client got
a gap.

If a rollback removes a message from the log before a client has read it, the message is gone, and this cannot be
detected. Such messages are counted separately.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import itertools
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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.proxy import Proxy
from benchmarks.stores import STORES, Store
from benchmarks.table import table
from ssehub import Backoff, Client, Hub, LogError
from tests.apps.shared import zone_of
from tests.servers import ROOT, children, free_port, gunicorn, process
from tests.streams import GUARD, until

SIZE = 5000
END = "the end"

#: Starts a store in a folder; uses the source of random numbers.
MakeStore = Callable[[Path, random.Random], Store]


@dataclass
class Seen:
    """The messages and gaps of one client, each with its time, in order."""

    number: int
    what: list[tuple[float, str | None]] = field(default_factory=list)


class Storm:
    """Sets everything up, causes the failures, and evaluates the result.

    :param make_store: starts the store of the log in a folder.
    :param worker: gunicorn's worker class.
    """

    def __init__(
        self, make_store: MakeStore, folder: Path, clients: int, publishers: int, seed: int, worker: str
    ) -> None:
        self.chance = random.Random(seed)
        self.faults: Counter[str] = Counter()
        #: What :meth:`close` ends, in the opposite order.
        self._stack = contextlib.ExitStack()
        self._clients: list[Client] = []
        try:
            self._set_up(make_store, folder, clients, publishers, worker)
        except BaseException:
            self.close()
            raise

    def _set_up(self, make_store: MakeStore, folder: Path, clients: int, publishers: int, worker: str) -> None:
        self.store = make_store(folder, self.chance)
        self._stack.callback(self.store.close)
        self._environment = {
            "LOG_SIZE": str(SIZE),
            "PARTITIONS": str(self.store.partitions),
            "CLIENTS": str(clients),
            "HEARTBEAT": "0.5",
        }
        port = free_port()
        command = list(gunicorn(worker, port, threads=clients + 20))
        command[command.index("-w") + 1] = "4"
        command[-1] = "tests.apps.shared:app"
        self._gunicorn = self._stack.enter_context(
            process(*command, LOG_URL=self.store.url, **self._environment)  # type: ignore[arg-type]
        )
        self._proxy = Proxy(port)
        self._stack.callback(self._proxy.close)
        self.seen = [Seen(n) for n in range(clients)]
        self._stack.callback(self._stop_clients)
        for one in self.seen:
            self._clients.append(self._follow(one))
        until(lambda: all(one.last_event_id for one in self._clients), "all clients to connect", guard=60.0)
        self._told: list[dict[str, Any]] = []
        self._readers: list[threading.Thread] = []
        self._publishers: list[subprocess.Popen[str]] = []
        self._stack.callback(self._end_publishers)
        for _ in range(publishers):
            self._publish()

    def _publish(self) -> None:
        """Start a publisher. Its messages have the number of the publisher in front, so no message is sent twice."""
        publisher = subprocess.Popen(
            [sys.executable, "-m", "tests.apps.shared", self.store.url, str(len(self._readers)), "1000000", "0.004"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self._environment},
        )
        self._publishers.append(publisher)
        self._readers.append(threading.Thread(target=self._note, args=(publisher,)))
        self._readers[-1].start()

    def _follow(self, seen: Seen) -> Client:
        url = f"http://127.0.0.1:{self._proxy.port}/events?client_id=c{seen.number}&zone={zone_of(seen.number)}"
        client = Client(url, backoff=Backoff(0.05, 2, 0.5), reconnect_delay=0.1, timeout=(3.0, 5.0, 5.0))
        client.on_event(lambda message: self._take(seen, message.data))
        client.on_gap(lambda reason, missed: seen.what.append((time.monotonic(), None)))
        return client.start()

    def _take(self, seen: Seen, data: str | None) -> None:
        seen.what.append((time.monotonic(), data))
        if seen.number % 10 == 0 and random.random() < 0.001:
            time.sleep(random.uniform(0.5, 3.0))  # a client that stalls

    def _note(self, publisher: subprocess.Popen[str]) -> None:
        assert publisher.stdout is not None
        with publisher.stdout as output:
            for line in output:
                with contextlib.suppress(ValueError):  # the last line may be cut
                    self._told.append(json.loads(line))

    def rage(self, seconds: float) -> None:
        """Cause one failure after the other for this time."""
        every = [self._kill_worker, self._kill_publisher, self._deploy, self._cut, self._cut, *self.store.faults]
        end = time.monotonic() + seconds
        turns: list[Callable[[], None]] = []
        while time.monotonic() < end:
            if not turns:
                turns = self.chance.sample(every, len(every))
            fault = turns.pop()
            with contextlib.suppress(*self.store.errors):
                fault()
                self.faults[fault.__name__.strip("_")] += 1
            time.sleep(self.chance.uniform(0.1, 1.5))

    def _kill_worker(self) -> None:
        if workers := sorted(children(self._gunicorn)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(workers), signal.SIGKILL)

    def _kill_publisher(self) -> None:
        publisher = self._publishers.pop(self.chance.randrange(len(self._publishers)))
        publisher.kill()
        publisher.wait()
        self._publish()

    def _deploy(self) -> None:
        self._gunicorn.send_signal(signal.SIGHUP)

    def _cut(self) -> None:
        self._proxy.cut(0.5)

    def calm(self) -> list[dict[str, Any]]:
        """End the publishers, wait until all clients have the last message, and return the accepted messages."""
        self._end_publishers()
        with contextlib.closing(Hub(self.store.log(SIZE))) as hub:
            until(lambda: _sent(hub))
            began = time.monotonic()
            while not all(_has_ended(one) for one in self.seen):
                time.sleep(0.2)
                _sent(hub)  # for a client that connects late, the first message is in a gap
                if time.monotonic() > began + 3 * GUARD:
                    late = [
                        repr(client)
                        for client, one in zip(self._clients, self.seen, strict=True)
                        if not _has_ended(one)
                    ]
                    raise AssertionError(f"not all clients have received the last message: {late}")
        return self._told

    def close(self) -> None:
        """End everything that was started."""
        self._stack.close()

    def _end_publishers(self) -> None:
        for publisher in self._publishers:
            publisher.kill()
            publisher.wait()
        for reader in self._readers:
            reader.join()

    def _stop_clients(self) -> None:
        for client in self._clients:
            client.stop()
        for client in self._clients:
            client.stop(10)


def _sent(hub: Hub) -> bool:
    try:
        hub.broadcast(END)
    except LogError:
        return False
    return True


def _has_ended(seen: Seen) -> bool:
    return any(data == END for _, data in seen.what[-20:])


def judge(storm: Storm, told: list[dict[str, Any]]) -> dict[str, int]:
    """Count the messages by what happened to them."""
    accepted = [one for one in told if one["ok"]]
    by_data = {one["data"]: one for one in told}
    by_whom: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for one in accepted:
        by_whom.setdefault((one["kind"], one["whom"]), []).append(one)
    taken_back = {one["data"] for one in told if _was_rolled_back(one, storm.store.rollbacks)}
    counts = Counter({"accepted": len(accepted), "refused": len(told) - len(accepted), "delivered": 0, "duplicates": 0})
    counts.update({"in a gap": 0, "taken back": 0, "lost without report": 0, "gaps": 0})
    for seen in storm.seen:
        got = Counter(data for _, data in seen.what if data is not None and data != END)
        counts["delivered"] += got.total()
        counts["gaps"] += sum(data is None for _, data in seen.what)
        counts["duplicates"] += sum(n - 1 for data, n in got.items() if n > 1 and data not in taken_back)
        for whom in (("client", f"c{seen.number}"), ("zone", zone_of(seen.number)), ("all", None)):
            for one in by_whom.get(whom, ()):
                if one["data"] not in got:
                    counts[_fate(one, seen, by_data, taken_back)] += 1
    return dict(counts)


def _was_rolled_back(one: dict[str, Any], rollbacks: list[tuple[float, float]]) -> bool:
    return any(one["began"] <= end and one["ended"] >= start for start, end in rollbacks)


def _fate(one: dict[str, Any], seen: Seen, by_data: dict[str, dict[str, Any]], taken_back: set[str]) -> str:
    """Return what happened to a message that a client has not received."""
    start = bisect.bisect_left(seen.what, one["began"], key=lambda what: what[0])
    for _, data in itertools.islice(seen.what, start, None):
        if data is None:
            return "in a gap"
        if data == END or by_data.get(data, one)["began"] > one["ended"]:
            break  # a later message arrived first
    return "taken back" if one["data"] in taken_back else "lost without report"


def run(
    log: str, seconds: float, clients: int, publishers: int, seed: int, worker: str = "gthread", **options: int
) -> dict[str, int]:
    """Run one storm, and return the counts and the faults.

    :param log: the name of the log.
    :param worker: gunicorn's worker class. The streams of a ``sync`` worker are detached, those of others are parked.
    :param options: the options of the store: ``partitions`` of the log on Redis.
    """
    with tempfile.TemporaryDirectory() as folder:
        make = STORES[log]
        storm = Storm(
            lambda folder, chance: make(folder, chance, **options), Path(folder), clients, publishers, seed, worker
        )
        try:
            storm.rage(seconds)
            told = storm.calm()
        finally:
            storm.close()
        return {**judge(storm, told), **storm.faults}


def main() -> None:
    """Run a storm and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", choices=sorted(STORES), nargs="?", default="sqlite")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--clients", type=int, default=60)
    parser.add_argument("--publishers", type=int, default=4)
    parser.add_argument("--partitions", type=int, default=1, help="of the log on Redis")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker", choices=("sync", "gthread", "gevent"), default="sync")
    given = parser.parse_args()
    options = {"partitions": given.partitions} if given.partitions != 1 else {}
    counts = run(
        given.log, given.minutes * 60, given.clients, given.publishers, given.seed, worker=given.worker, **options
    )
    print(table([["what", "number"], *([name, f"{number:,}"] for name, number in counts.items())]))


if __name__ == "__main__":
    main()
