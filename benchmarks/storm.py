"""The storm: four workers on one log, with failures of every kind: ``python -m benchmarks.storm --minutes 5``.

Workers are killed. The Redis server is stopped, and comes back with its saved data or with none. Connections are cut
in the middle of an event, and killed at the server. Clients stall. The log is trimmed, rolled back to an older dump,
and flushed. At the end each accepted message has arrived once at each of its clients, or the client got a gap.

If a rollback removes a message from the log before a client has read it, the message is gone, and this cannot be
detected. Such messages are counted separately.
"""

from __future__ import annotations

import argparse
import asyncio
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

import redis

from benchmarks.table import table
from ssehub import Backoff, Client, Hub, LogError, RedisLog
from ssehub.log.redis.stream import stream_key
from tests.apps.shared import zone_of
from tests.redis_server import RedisServer
from tests.servers import ROOT, children, free_port, gunicorn, process
from tests.streams import GUARD, until

SIZE = 5000
END = "the end"


@dataclass
class Seen:
    """The messages and gaps of one client, each with its time, in order."""

    number: int
    what: list[tuple[float, str | None]] = field(default_factory=list)


class Proxy:
    """A proxy between clients and server that cuts connections anywhere."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self.port = free_port()
        listening = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening,))
        self._thread.start()
        listening.wait(GUARD)

    def _run(self, listening: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        listening.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        except OSError:
            writer.close()
            return
        self._open.add(writer)
        with contextlib.suppress(OSError):
            ways = [asyncio.create_task(_copy(reader, far_writer)), asyncio.create_task(_copy(far_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        self._open.discard(writer)
        for one in (writer, far_writer):
            one.transport.abort()

    def turn_to(self, port: int) -> None:
        """Direct new connections to another server."""
        self._behind = port

    def cut(self, share: float) -> None:
        """Cut a share of the connections."""

        def abort() -> None:
            for writer in list(self._open):
                if random.random() < share:
                    writer.transport.abort()

        self._loop.call_soon_threadsafe(abort)

    def close(self) -> None:
        """Cut all connections, and stop."""
        self.cut(1.0)
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.call_later, 0.2, self._loop.stop)
        self._thread.join()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(random.choice((10, 1000, 65536))):
            writer.write(data)
            await writer.drain()


class Storm:
    """Sets everything up, causes the failures, and evaluates the result."""

    def __init__(
        self, folder: Path, clients: int, publishers: int, partitions: int, seed: int, worker: str = "gthread"
    ) -> None:
        self.chance = random.Random(seed)
        self.faults: Counter[str] = Counter()
        #: The periods in which the log may have lost data: from taking a dump to the end of restoring it.
        self.rollbacks: list[tuple[float, float]] = []
        self._folder = folder
        #: What :meth:`close` ends, in the opposite order.
        self._stack = contextlib.ExitStack()
        self._clients: list[Client] = []
        try:
            self._set_up(folder, clients, publishers, partitions, worker)
        except BaseException:
            self.close()
            raise

    def _set_up(self, folder: Path, clients: int, publishers: int, partitions: int, worker: str) -> None:
        self._server = RedisServer(folder)
        self._stack.callback(self._server.close)
        self._keys = [stream_key("ssehub", number, partitions) for number in range(partitions)]
        #: The times of the dumps, and the dump of each key.
        self._dumps: tuple[float, list[Any]] | None = None
        self._partitions = partitions
        environment = {"LOG_SIZE": str(SIZE), "PARTITIONS": str(partitions), "CLIENTS": str(clients)}
        port = free_port()
        command = list(gunicorn(worker, port, threads=clients + 20))
        command[command.index("-w") + 1] = "4"
        command[-1] = "tests.apps.shared:app"
        self._gunicorn = self._stack.enter_context(
            process(*command, REDIS_URL=self._server.url, HEARTBEAT="0.5", **environment)  # type: ignore[arg-type]
        )
        self._proxy = Proxy(port)
        self._stack.callback(self._proxy.close)
        self.seen = [Seen(n) for n in range(clients)]
        self._stack.callback(self._stop_clients)
        for one in self.seen:
            self._clients.append(self._follow(one))
        until(lambda: all(one.last_event_id for one in self._clients), "all clients to connect", guard=60.0)
        self._publishers = [self._publish(k, environment) for k in range(publishers)]
        self._told: list[dict[str, Any]] = []
        self._readers = [threading.Thread(target=self._note, args=(one,)) for one in self._publishers]
        for reader in self._readers:
            reader.start()

    def _publish(self, seed: int, environment: dict[str, str]) -> subprocess.Popen[str]:
        publisher = subprocess.Popen(
            [sys.executable, "-m", "tests.apps.shared", self._server.url, str(seed), "1000000", "0.004"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        self._stack.callback(_end, publisher)
        return publisher

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
        for line in publisher.stdout:
            with contextlib.suppress(ValueError):  # the last line may be cut
                self._told.append(json.loads(line))

    def rage(self, seconds: float) -> None:
        """Cause one failure after the other for this time."""
        every = [self._kill_worker, self._cut, self._cut, self._kill_connections, self._trim, self._take_dump,
                 self._roll_back, self._flush, self._restart_empty, self._restart_saved]  # fmt: skip
        end = time.monotonic() + seconds
        turns: list[Callable[[], None]] = []
        while time.monotonic() < end:
            if not turns:
                turns = self.chance.sample(every, len(every))
            fault = turns.pop()
            with contextlib.suppress(redis.RedisError):
                fault()
                self.faults[fault.__name__.strip("_")] += 1
            time.sleep(self.chance.uniform(0.1, 1.5))

    def _kill_worker(self) -> None:
        if workers := sorted(children(self._gunicorn)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(workers), signal.SIGKILL)

    def _cut(self) -> None:
        self._proxy.cut(0.5)

    def _kill_connections(self) -> None:
        for _ in range(20):
            self._server.client.client_kill_filter(_type="normal", skipme=True)
            time.sleep(0.01)

    def _trim(self) -> None:
        for key in self._keys:
            self._server.client.xtrim(key, maxlen=5, approximate=False)

    def _take_dump(self) -> None:
        self._dumps = time.monotonic(), [self._server.client.dump(key) for key in self._keys]

    def _roll_back(self) -> None:
        if self._dumps is None:
            return
        for key, dump in zip(self._keys, self._dumps[1], strict=True):
            if dump:
                self._server.client.restore(key, 0, dump, replace=True)
        self.rollbacks.append((self._dumps[0], time.monotonic()))

    def _flush(self) -> None:
        self._server.client.flushall()
        self._dumps = None

    def _restart_empty(self) -> None:
        self._server.kill()
        (self._folder / "dump.rdb").unlink(missing_ok=True)
        time.sleep(self.chance.uniform(0, 1))
        self._server.start()
        self._dumps = None

    def _restart_saved(self) -> None:
        began = time.monotonic()
        self._server.client.save()
        time.sleep(self.chance.uniform(0, 0.5))
        self._server.kill()
        time.sleep(self.chance.uniform(0, 1))
        self._server.start()
        self.rollbacks.append((began, time.monotonic()))

    def calm(self) -> list[dict[str, Any]]:
        """End the publishers, wait until all clients have the last message, and return the accepted messages."""
        for publisher in self._publishers:
            publisher.terminate()
            publisher.wait()
        for reader in self._readers:
            reader.join()
        with contextlib.closing(Hub(RedisLog(self._server.url, size=SIZE, partitions=self._partitions))) as hub:
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

    def _stop_clients(self) -> None:
        for client in self._clients:
            client.stop()
        for client in self._clients:
            client.stop(10)


def _end(publisher: subprocess.Popen[str]) -> None:
    publisher.kill()
    publisher.wait()
    if publisher.stdout is not None:
        publisher.stdout.close()


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
    taken_back = {one["data"] for one in told if _was_rolled_back(one, storm.rollbacks)}
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
    seconds: float, clients: int, publishers: int, partitions: int, seed: int, worker: str = "gthread"
) -> dict[str, int]:
    """Run one storm, and return the counts and the faults.

    :param worker: gunicorn's worker class. The streams of a ``sync`` worker are detached, those of others are parked.
    """
    with tempfile.TemporaryDirectory() as folder:
        storm = Storm(Path(folder), clients, publishers, partitions, seed, worker)
        try:
            storm.rage(seconds)
            told = storm.calm()
        finally:
            storm.close()
        return {**judge(storm, told), **storm.faults}


def main() -> None:
    """Run a storm and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--clients", type=int, default=60)
    parser.add_argument("--publishers", type=int, default=4)
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker", choices=("sync", "gthread", "gevent"), default="sync")
    options = parser.parse_args()
    size = options.clients, options.publishers, options.partitions
    counts = run(options.minutes * 60, *size, options.seed, options.worker)
    print(table([["what", "number"], *([name, f"{number:,}"] for name, number in counts.items())]))


if __name__ == "__main__":
    main()
