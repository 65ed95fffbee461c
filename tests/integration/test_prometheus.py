"""Metrics: what Prometheus is told, by one process for all."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ssehub import ALL, Hub, MemoryLog, Packet, RedisLog
from ssehub.events import Message
from ssehub.integrations.prometheus import HubCollector
from ssehub.log import Process
from ssehub.service import create_app
from tests.apps.compressing import compressed
from tests.redis_server import RedisServer
from tests.servers import answers, free_port, process
from tests.streams import GUARD, Stream, call, until

MakeHub = Callable[..., Hub]
HERE = f"{socket.gethostname()}:{os.getpid()}"


def read(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the samples of an exposition by name and the values of their labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(one.name, tuple(one.labels.values())): one.value for one in samples}
    assert len(found) == len(samples), "a series is there twice"
    return found


def collect(hub: Hub, **options: Any) -> dict[tuple[str, tuple[str, ...]], float]:
    registry = CollectorRegistry()
    registry.register(HubCollector(hub, **options))
    return read(generate_latest(registry).decode())


def test_a_scrape_tells_what_happened(make_hub: MakeHub, site: Callable[[Any], Any]) -> None:
    hub = make_hub(MemoryLog(size=3))
    here = site(create_app(hub, public=False))
    first, second = here.stream("/events?zone=a&client_id=ada"), here.stream("/events?zone=a&zone=b&client_id=bob")
    for text in "12345":
        hub.broadcast(text, zone="a")
        assert [first.message().data, second.message().data] == [text, text]
    first.close()
    until(lambda: hub.stats()["connections"] == 1)
    gone = here.stream("/events?zone=a", **{"Last-Event-ID": "unheard-of"})
    assert gone.message().event == "ssehub.gap"
    hub.connections(client_id="bob")[0].send("to bob alone")
    assert second.message().data == "to bob alone"
    until(lambda: hub.stats()["pending"] == 0)
    sent = hub.stats()["sent_bytes"]
    found = collect(hub, zones=True)
    expected = {
        "ssehub_connections": 2, "ssehub_clients": 2, "ssehub_behind_connections": 0, "ssehub_lag_entries": 0,
        "ssehub_pending_messages": 0, "ssehub_unsent_messages": 0, "ssehub_log_lag_entries": 0,
        "ssehub_messages_total": 5, "ssehub_deliveries_total": 10, "ssehub_gaps_total": 1, "ssehub_opened_total": 3,
        "ssehub_refused_total": 0, "ssehub_hang_ups_total": 1, "ssehub_stalled_total": 0,
    }  # fmt: skip
    assert {name: found[name, (HERE,)] for name in expected} == expected
    # A client may have read a piece that the hub is still about to count.
    assert 500 < sent <= found["ssehub_sent_bytes_total", (HERE,)] <= hub.stats()["sent_bytes"]
    assert found["ssehub_zone_connections", ("a",)] == 2 and found["ssehub_zone_connections", ("b",)] == 1


def test_how_streams_are_served_is_told_and_why_not_otherwise(make_hub: MakeHub, site: Callable[[Any], Any]) -> None:
    hub = make_hub(detach=True)
    taken, packed = (
        site(create_app(hub, public=False)),
        site(compressed(create_app(hub, public=False), is_flushed=True)),
    )
    streams = [taken.stream("/events"), taken.stream("/events"), packed.stream("/events")]
    until(lambda: hub.stats()["detached"] == 2 and hub.stats()["not_taken"])
    found = collect(hub)
    assert found["ssehub_taken_over_streams", (HERE,)] == found["ssehub_detached_streams", (HERE,)] == 2
    assert found["ssehub_connections", (HERE,)] == 3
    assert found["ssehub_not_taken_streams_total", (HERE, "a middleware compresses the stream")] == 1
    for stream in streams:
        stream.close()


def test_processes_that_do_not_count_everything_are_told_all_the_same(
    make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = make_hub()
    older = {name: value for name, value in hub.stats().items() if name not in ("taken_over", "detached", "not_taken")}
    monkeypatch.setattr(hub, "processes", lambda: [Process("older", "there", 1, 0, older)])
    found = collect(hub)
    assert found["ssehub_connections", ("there:1",)] == 0
    assert not [name for name, _ in found if "taken" in name or "detached" in name]


def test_the_seconds_from_send_to_write_are_those_of_each_write(make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.broadcast("before it came")
    stream = hub.stream(since="oldest")
    for _ in ("the preamble", "what it had missed: nobody was slow"):
        next(stream)
    hub.broadcast("1")
    hub.broadcast("2")
    next(stream)  # both in one write, which ends when the server asks for more
    hub.broadcast("3")
    next(stream)
    assert hub.stats()["delays"]["counts"][-1] == 0
    found = collect(hub)
    buckets = [found["ssehub_send_to_write_seconds_bucket", key] for name, key in found if name.endswith("_bucket")]
    assert buckets == sorted(buckets) and buckets[-1] == found["ssehub_send_to_write_seconds_count", (HERE,)] == 1
    assert 0 < found["ssehub_send_to_write_seconds_sum", (HERE,)] < GUARD
    stream.close()
    assert collect(hub)["ssehub_send_to_write_seconds_count", (HERE,)] == 1, "kept when the connection has gone"


def test_zones_are_told_only_to_who_may_see_them_and_numbers_to_everyone(
    make_hub: MakeHub, site: Callable[[Any], Any]
) -> None:
    hub = make_hub()
    here = site(create_app(hub, token="secret"))
    stream = here.stream("/events?zone=private")
    url = f"http://127.0.0.1:{here.port}/metrics"
    answer = requests.get(url, timeout=GUARD)
    assert answer.headers["Content-Type"].startswith("text/plain") and "private" not in answer.text
    assert read(answer.text)["ssehub_connections", ("this",)] == 1 and HERE not in answer.text
    assert requests.get(f"{url}?zones=1", timeout=GUARD).status_code == 401
    answer = requests.get(f"{url}?zones=1", headers={"Authorization": "Bearer secret"}, timeout=GUARD)
    assert read(answer.text)["ssehub_zone_connections", ("private",)] == 1
    answer = requests.get(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"}, timeout=GUARD)
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text") and answer.text.endswith("# EOF\n")
    stream.close()


def test_without_its_package_the_service_says_what_is_missing(
    make_hub: MakeHub, site: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "ssehub.integrations.prometheus")
    answer = requests.get(f"http://127.0.0.1:{site(create_app(make_hub(), public=False)).port}/metrics", timeout=GUARD)
    assert answer.status_code == 501 and "pip install 'ssehub[prometheus]'" in answer.json()["error"]


def test_registering_asks_nobody_and_starts_nothing_because_servers_fork() -> None:
    hub = Hub(RedisLog("redis://127.0.0.1:1/0", timeout=GUARD))
    names = [family.name for family in HubCollector(hub).describe()]
    assert "ssehub_send_to_write_seconds" in names and threading.active_count() == 1


def test_any_of_several_workers_answers_for_all(redis_server: RedisServer) -> None:
    port, name = free_port(), secrets.token_hex(8)
    command = (sys.executable, "-m", "gunicorn", "-w", "2", "-k", "gthread", "--threads", "60", "--log-level", "error")
    environment = {"LOG_URL": redis_server.url, "NAME": name, "LEASE": "0.3"}
    with process(*command, "-b", f"127.0.0.1:{port}", "tests.apps.shared:app", **environment):
        until(lambda: answers(port))
        there: set[int] = set()
        until(lambda: there.add(call(port, "GET", "/stats")[1]["server"]["pid"]) or len(there) == 2, "both workers")
        streams: list[Stream] = []

        def workers() -> set[str]:
            text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=GUARD).text
            return {labels[0] for (name, labels) in read(text) if name == "ssehub_connections"}

        while len(workers()) < 2:
            streams.append(Stream(port, "/events?zone=default"))
            assert len(streams) < 55, "all streams came to one worker"
        requests.post(f"http://127.0.0.1:{port}/send", json={"data": "x", "broadcast": True}, timeout=GUARD)
        for stream in streams:
            assert stream.message().data == "x"

        def totals(name: str) -> float:
            text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=GUARD).text
            return sum(value for (one, _), value in read(text).items() if one == name)

        until(lambda: totals("ssehub_deliveries_total") == len(streams))
        until(lambda: totals("ssehub_send_to_write_seconds_count") == len(streams))
        until(lambda: totals("ssehub_log_lag_entries") == 0)


def test_while_redis_is_away_a_process_answers_for_itself(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    hub = Hub(RedisLog(server.url, timeout=0.2))
    stream = hub.stream()
    next(stream)
    assert collect(hub)["ssehub_log_lag_entries", (HERE,)] == 0
    server.kill()
    found = collect(hub)
    assert found["ssehub_connections", (HERE,)] == 1 and ("ssehub_log_lag_entries", (HERE,)) not in found
    stream.close()
    hub.close()
    server.close()


def test_the_lag_is_what_the_log_has_and_this_process_has_not_taken(redis_server: RedisServer) -> None:
    name, go = secrets.token_hex(8), threading.Event()
    here, there = RedisLog(redis_server.url, name=name), RedisLog(redis_server.url, name=name)
    here.start(lambda entry: int(go.wait(GUARD)), lambda tail, orders: None)
    assert here.lag() == 0
    for text in "abc":
        there.append(Packet(Message(text), ALL, broadcast=True))
    assert here.lag() == 3
    go.set()
    until(lambda: here.lag() == 0)
    here.close()
    there.close()


def test_counters_never_go_backwards_while_streams_come_and_go(make_hub: MakeHub) -> None:
    hub, over = make_hub(), threading.Event()
    hub.broadcast("x", zone="default")

    def come_and_go() -> None:
        while not over.is_set():
            stream = hub.stream(since="oldest")
            next(stream), next(stream)
            stream.close()  # type: ignore[attr-defined]

    switching = sys.getswitchinterval()
    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    try:
        sys.setswitchinterval(1e-5)
        for thread in threads:
            thread.start()
        seen = [hub.stats() for _ in range(4000)]
    finally:
        over.set()
        sys.setswitchinterval(switching)
        for thread in threads:
            thread.join()
    for name in ("delivered", "sent_bytes", "opened", "hang_ups"):
        numbers = [one[name] for one in seen]
        assert numbers == sorted(numbers), name


def test_two_of_one_process_are_two_series(redis_server: RedisServer) -> None:
    name = secrets.token_hex(8)
    hubs = [Hub(RedisLog(redis_server.url, name=name)) for _ in range(2)]
    streams = [hub.stream() for hub in hubs]
    for stream in streams:
        next(stream)

    def connections() -> list[float]:
        return sorted(value for (series, _), value in collect(hubs[0]).items() if series == "ssehub_connections")

    until(lambda: connections() == [1, 1])  # clients without a name are shown to other processes a moment later
    for stream, hub in zip(streams, hubs, strict=True):
        stream.close()  # type: ignore[attr-defined]
        hub.close()


def test_a_process_that_serves_nobody_yet_is_told_too(redis_server: RedisServer) -> None:
    hub = Hub(RedisLog(redis_server.url, name=secrets.token_hex(8)))
    assert collect(hub)["ssehub_log_lag_entries", (HERE,)] == 0
    hub.close()
