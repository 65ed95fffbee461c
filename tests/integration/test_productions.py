"""Productions on shared logs: readers come and go on two servers, and the producing one is stopped or killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ssehub import Decoder, Hub
from tests.servers import free_port, gunicorn, output, process
from tests.shared_logs import KINDS, SharedLog
from tests.streams import GUARD, Stream, call, until

#: Seconds after which a test with killed servers counts as hanging.
LONG = 60.0


@pytest.fixture(params=KINDS)
def shared(request: pytest.FixtureRequest) -> SharedLog:
    return SharedLog(request, request.param)


class Servers:
    """Two servers with one log."""

    def __init__(self, shared: SharedLog, stack: contextlib.ExitStack) -> None:
        self.ports = [free_port(), free_port()]
        self.processes: list[subprocess.Popen[bytes]] = [
            stack.enter_context(
                process(
                    *gunicorn("gthread", port, app="tests.apps.producing:app"), LOG=shared.url, LOG_NAME=shared.name
                )
            )
            for port in self.ports
        ]
        for port in self.ports:
            until(lambda port=port: _answers(port), "a server to answer", LONG)  # type: ignore[misc]

    def produce(self, number: int, zone: str, count: int, **form: str) -> dict[str, Any]:
        status, answer = call(self.ports[number], "POST", f"/produce/{zone}", {"count": str(count), **form})
        assert status == 200
        found: dict[str, Any] = answer
        return found


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return call(port, "GET", "/nothing")[0] == 404
    return False


@pytest.fixture
def servers(shared: SharedLog) -> Iterator[Servers]:
    with contextlib.ExitStack() as stack:
        yield Servers(shared, stack)


class Reader:
    """Reads a production in a thread. It leaves at random, and comes back to any server with its last event id."""

    def __init__(self, ports: list[int], zone: str, seed: int) -> None:
        self.items: list[int] = []
        self.end: dict[str, Any] | None = None
        self.gaps: list[str | None] = []
        self._ports, self._zone, self._chance = ports, zone, random.Random(seed)
        self._last_id = ""
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._connect():
                    return

    def _connect(self) -> bool:
        port = self._chance.choice(self._ports)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
        patience = self._chance.randint(1, 40)
        try:
            connection.request("GET", f"/read/{self._zone}", headers={"Last-Event-ID": self._last_id})
            response = connection.getresponse()
            if response.status == 204:
                return True
            decoder = Decoder(self._last_id)
            while patience and (chunk := response.read1(1500)):
                patience -= self.end is None
                for message in decoder.feed(chunk):
                    self._take(message.event, message.data)
                    self._last_id = decoder.last_event_id
            return False
        finally:
            connection.close()

    def _take(self, event: str, data: str | None) -> None:
        if event == "message":
            assert self.end is None, "an item came after the end"
            self.items.append(int(data or ""))
        elif event == "ssehub.end":
            self.end = json.loads(data or "")
        elif event == "ssehub.gap":
            self.gaps.append(data)


@pytest.mark.parametrize("fate", ["done", "stopped", "lost"])
def test_every_reader_has_every_item_once_and_the_right_end(servers: Servers, fate: str) -> None:
    count = 3000 if fate == "done" else 1_000_000
    assert servers.produce(0, "answer", count)["started"]
    readers = [Reader(servers.ports, "answer", n) for n in range(20)]
    until(lambda: min(len(one.items) for one in readers) > 500, "readers", LONG)
    if fate == "stopped":
        assert call(servers.ports[1], "POST", "/stop/answer")[0] == 204
    elif fate == "lost":
        os.killpg(servers.processes[0].pid, signal.SIGKILL)
        for one in readers:
            one._ports = servers.ports[1:]
    for one in readers:
        one.thread.join(LONG)
        assert not one.thread.is_alive()
    (length,) = {len(one.items) for one in readers}
    assert length == count or (fate != "done" and length > 500)
    for one in readers:
        assert one.items == list(range(length)) and not one.gaps
        assert one.end == {"reason": fate, "zone": "answer"}
    late = Stream(servers.ports[1], "/read/answer")
    assert json.loads(late.rest()[-1].data or "")["reason"] == fate


def test_several_processes_start_it_once(servers: Servers) -> None:
    answers: list[dict[str, Any]] = []

    def ask(n: int) -> None:
        answers.append(servers.produce(n % 2, f"zone{n}", 100, key="order 17"))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one["started"] for one in answers) == 1
    (zone,) = {one["zone"] for one in answers}
    events = Stream(servers.ports[0], f"/read/{zone}").rest()
    data = [one.data for one in events if one.event in ("message", "ssehub.end")]
    assert data == [*map(str, range(100)), f'{{"reason":"done","zone":"{zone}"}}']


_DIES = """
import os, sys, time
from ssehub import Hub
from ssehub.log.urls import open_log

def items():
    yield "begun"
    time.sleep(60)

hub = Hub(open_log(sys.argv[1], name=sys.argv[2], lease=0.5))
hub.produce("answer", items())
while "begun" not in [one.data for one in hub.history("answer").messages]:
    time.sleep(0.01)
if sys.argv[3] == "killed":
    os.kill(os.getpid(), 9)
"""


def test_a_process_that_exits_writes_the_end_itself(shared: SharedLog) -> None:
    output(_DIES, shared.url, shared.name, "exits")
    hub = Hub(shared(lease=60.0))
    last = hub.history("answer").messages[-1]
    assert last.data == '{"reason":"lost","zone":"answer"}'
    hub.close()


def test_several_processes_write_the_end_of_a_killed_one_once(shared: SharedLog) -> None:
    import sys

    subprocess.run([sys.executable, "-c", _DIES, shared.url, shared.name, "killed"], check=False)
    hubs = [Hub(shared(lease=0.5)) for _ in range(3)]
    streams = [hub.stream(zone="another") for hub in hubs]  # a process with a stream looks after the others
    for stream in streams:
        next(stream)

    def events() -> list[str | None]:
        return [one.data for one in hubs[0].history("answer").messages]

    until(lambda: len(events()) > 1, "the end", LONG)
    for hub in hubs:
        until(lambda hub=hub: len(hub.processes()) == 3, "the killed process to be forgotten", LONG)  # type: ignore[misc]
    assert events() == ["begun", '{"reason":"lost","zone":"answer"}']
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]
    for hub in hubs:
        hub.close()


def test_after_an_outage_of_the_store_no_living_production_counts_as_lost(redis_server: Any) -> None:
    from ssehub.log.redis import RedisLog

    hubs = [Hub(RedisLog(redis_server.url, name="paused", lease=0.5, timeout=1.0)) for _ in range(2)]
    streams = [hub.stream(zone="another") for hub in hubs]
    for stream in streams:
        next(stream)
    go = threading.Event()

    def items() -> Iterator[str]:
        yield "first"
        assert go.wait(LONG)
        yield "last"

    hubs[0].produce("answer", items())
    beats = [hub._log.presence for hub in hubs]
    for _ in range(3):  # the leases expire in the store
        for key in redis_server.client.keys("{paused}:alive:*"):
            redis_server.client.delete(key)
        looked = [one._looked for one in beats]  # type: ignore[union-attr, attr-defined]
        until(lambda looked=looked: all(one._looked > old for one, old in zip(beats, looked, strict=True)), guard=LONG)  # type: ignore[misc, union-attr, attr-defined]
    go.set()
    until(lambda: len(hubs[1].history("answer").messages) == 3)
    assert [one.data for one in hubs[1].history("answer").messages][-1] == '{"reason":"done","zone":"answer"}'
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]
    for hub in hubs:
        hub.close()


def test_partitions_are_followed_where_something_is_produced(redis_server: Any) -> None:
    from ssehub.log.redis import RedisLog

    hubs = [Hub(RedisLog(redis_server.url, name="parts", partitions=8)) for _ in range(2)]
    closed = threading.Event()
    permits = threading.Semaphore(0)

    def items() -> Iterator[str]:
        try:
            while permits.acquire(timeout=GUARD):
                yield "x"
        finally:
            closed.set()

    for n in range(5):
        closed.clear()
        hubs[0].produce(f"zone {n}", items(), key=f"key {n}")
        hubs[1].stop(f"zone {n}")
        until(lambda n=n: [one.event for one in hubs[1].history(f"zone {n}").messages] == ["ssehub.end"])  # type: ignore[misc]
        permits.release()
        assert closed.wait(GUARD)
    for hub in hubs:
        hub.close()


_GEVENT = """
from ssehub import Hub
import gevent.monkey; gevent.monkey.patch_all()
import gevent, sys, time
from ssehub.log.urls import open_log

others = 0
def other():
    global others
    while True:
        gevent.sleep(0.01)
        others += 1

def items(count):
    for n in range(count):
        time.sleep(0.02)
        yield n

gevent.spawn(other)
hub = Hub(open_log(sys.argv[1], name=sys.argv[2]))
hub.produce("whole", items(10))
whole = b"".join(hub.stream(zone="whole", since="oldest"))
hub.produce("stopped", items(10_000))
gevent.spawn_later(0.2, hub.stop, "stopped")
stopped = b"".join(hub.stream(zone="stopped", since="oldest"))
print(whole.count(b"data: ") - 2, b'"done"' in whole, b'"stopped"' in stopped, others > 5)
hub.close()
"""


def test_productions_run_in_greenlets(shared: SharedLog) -> None:
    assert output(_GEVENT, shared.url, shared.name) == "10 True True True\n"
