"""Presence: who is connected, seen from every process. Hubs on one log stand for processes."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ssehub import Hub, LogError, PostgresLog, RedisLog, SQLiteLog, UnknownClient
from ssehub.log.redis.ledger import Ledger
from tests.followers import Follower
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer
from tests.servers import ROOT
from tests.shared_logs import KINDS, SharedLog
from tests.streams import GUARD, until

MakeHub = Callable[..., Hub]


@pytest.fixture(params=KINDS)
def log(request: pytest.FixtureRequest) -> SharedLog:
    """Give a log that several processes share."""
    return SharedLog(request, request.param)


@pytest.fixture
def make(log: SharedLog, make_hub: MakeHub) -> MakeHub:
    """Give a function that makes hubs on one log, each as if in a process of its own."""
    return lambda **options: make_hub(log(**options), heartbeat=0.05)


@pytest.fixture
def make_on_redis(redis_server: RedisServer, make_hub: MakeHub) -> MakeHub:
    """Give a function that makes hubs on one log on Redis."""
    name = secrets.token_hex(8)
    return lambda **options: make_hub(RedisLog(redis_server.url, name=name, **options), heartbeat=0.05)


def seen(hub: Hub) -> list[tuple[str, tuple[str, ...]]]:
    return sorted((one.client_id, one.zones) for one in hub.connections(everywhere=True))


def test_every_process_sees_everyone_as_soon_as_his_stream_has_begun(make: MakeHub) -> None:
    first, second, asking = make(), make(), make()
    ada = Follower(first, client_id="ada", zone=["a", "b"])
    Follower(second, client_id="ada", zone="b")
    Follower(second, client_id="bob", zone="b")
    for hub in (first, second, asking):
        assert seen(hub) == [("ada", ("a", "b")), ("ada", ("b",)), ("bob", ("b",))]
        assert hub.zones() == {"a": 1, "b": 3}
        assert hub.is_present("ada", "a") and hub.is_present("bob") and not hub.is_present("bob", "a")
        assert len(hub.connections("b", "ada", everywhere=True)) == 2
        assert sorted(one.connections for one in hub.processes()) == ([0, 1, 2] if hub is asking else [1, 2])
    assert len(first.connections()) == 1 and asking.connections() == []
    (session,) = second.connections("a", everywhere=True)
    assert session.id == ada.session_id and session.zone == "a" and session.connected_at > 1e9
    ada.leave(first)
    until(lambda: seen(asking) == [("ada", ("b",)), ("bob", ("b",))])
    assert asking.zones() == {"b": 2}
    second.close()
    assert seen(asking) == [] and asking.zones() == {} and [one.connections for one in asking.processes()] == [0, 0]


def test_what_must_arrive_is_refused_only_if_the_client_is_nowhere(make: MakeHub) -> None:
    serving, sending = make(), make()
    ada = Follower(serving, client_id="ada", zone="a")
    before = threading.active_count()
    sending.send("ada", "hello", require=True)
    with pytest.raises(UnknownClient):
        sending.send("ada", "x", zone="b", require=True)
    with pytest.raises(UnknownClient):
        sending.send("bob", "x", require=True)
    assert threading.active_count() == before
    ada.wait_for("hello")


def test_a_stream_that_has_not_begun_is_disconnected_in_another_process_too(make: MakeHub) -> None:
    serving, asking = make(), make()
    stays = Follower(serving, client_id="stays")  # so that it follows the log
    stream = serving.stream(client_id="ada")
    asking.disconnect("ada")
    asking.broadcast("told")
    stays.wait_for("told")
    (end,) = stream
    assert end.startswith(b"retry:") and b"ssehub.open" not in end


@pytest.mark.parametrize("outbox", [0, 10])
def test_while_the_log_is_away_a_client_is_disconnected_here(make_hub: MakeHub, tmp_path: Path, outbox: int) -> None:
    server = RedisServer(tmp_path)
    hub = make_hub(RedisLog(server.url, timeout=0.5, outbox=outbox))
    ada, stream = Follower(hub, client_id="ada"), hub.stream(client_id="ada")
    server.kill()
    with contextlib.suppress(LogError):
        hub.disconnect("ada")
    ada.join()
    (end,) = stream
    assert b"ssehub.open" not in end
    server.close()


def test_a_client_is_disconnected_wherever_it_is_after_what_was_sent_before(make: MakeHub) -> None:
    first, second, asking = make(), make(), make()
    here, there, other = (Follower(hub, client_id="ada", zone=zone) for hub, zone in
                          ((first, "a"), (second, "a"), (second, "b")))  # fmt: skip
    bob = Follower(second, client_id="bob")
    asking.send("ada", "last words")
    assert asking.disconnect("ada", session_id="nobody's") == 0
    assert first.disconnect("ada", zone="a") == 2
    for one in (here, there):
        one.join()
        assert one.texts == ["last words"]
    assert asking.disconnect("ada", session_id=other.session_id) == 1
    other.join()
    until(lambda: asking.disconnect("ada") == 0)
    asking.broadcast("still there?")
    bob.wait_for("still there?")
    again = Follower(first, client_id="ada", since="oldest")  # the orders are in the log, and nobody obeys them again
    again.wait_for("last words", "still there?")


def test_all_sessions_of_a_client_share_their_metadata(make: MakeHub) -> None:
    first, second, asking = make(), make(), make()
    Follower(first, client_id="ada", metadata={"name": "Ada"})
    assert asking.get_metadata("ada") == {"name": "Ada"}
    late = Follower(second, client_id="ada")
    assert second.get_metadata("ada") == {"name": "Ada"}
    asking.set_metadata("ada", {"name": "Countess"})
    until(lambda: all(hub.get_metadata("ada") == {"name": "Countess"} for hub in (first, second, asking)))
    Follower(second, client_id="ada", metadata="from the newest session")
    until(lambda: all(hub.get_metadata("ada") == "from the newest session" for hub in (first, second)))
    until(lambda: {str(one.metadata) for one in asking.connections(everywhere=True)} == {"from the newest session"})
    late.leave(second)
    first.close()
    second.close()
    for act in (lambda: asking.get_metadata("ada"), lambda: asking.set_metadata("ada", 1)):
        with pytest.raises(UnknownClient):
            act()


@pytest.mark.parametrize("data", [{1, 2}, b"bytes", object()])
def test_metadata_that_cannot_travel_is_refused_where_it_enters(make: MakeHub, data: object) -> None:
    hub = make()
    for act in (lambda: hub.stream(metadata=data), lambda: hub.connect({}, metadata=data)):
        with pytest.raises(TypeError, match="JSON"):
            act()
    ada = Follower(hub, client_id="ada")
    with pytest.raises(TypeError, match="JSON"):
        hub.set_metadata("ada", data)
    assert hub.get_metadata("ada") is None and ada.session_id


SERVING = """
import sys, time
from ssehub import Hub
from ssehub.log.urls import open_log
hub = Hub(open_log(sys.argv[1], name=sys.argv[2], lease=1.0))
stream = hub.stream(client_id="ada", zone="a")
next(stream)
print("there", flush=True)
time.sleep(60)
"""


def test_a_process_that_is_killed_is_forgotten_and_one_that_lives_is_not(log: SharedLog, make: MakeHub) -> None:
    hub = make(lease=1.0)
    Follower(hub, client_id="bob", zone="a")
    command = [sys.executable, "-c", SERVING, log.url, log.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout and process.stdout.readline() == b"there\n"
        assert hub.is_present("ada") and hub.zones() == {"a": 2}
        _await_renewals(log, hub, 4)  # it has been there for longer than one lease
        assert hub.is_present("ada")
        process.kill()
    until(lambda: not hub.is_present("ada"))
    until(lambda: hub.zones() == {"a": 1})
    assert seen(make()) == [("bob", ("a",))]
    until(lambda: len(_leases(log, hub)) == 1)  # what it left is cleared away
    if log.kind == "redis":
        assert log.server.client.hkeys(f"{{{log.name}}}:where") == [b"bob"]
    else:
        assert hub._log._store.query(f"SELECT client_id FROM {log.name}_clients") == [("bob",)]  # type: ignore[attr-defined]


def _leases(log: SharedLog, hub: Hub) -> dict[Any, float]:
    """Return when the lease of each process ends."""
    if log.kind != "redis":
        return dict(hub._log._store.query(f"SELECT process, expires FROM {log.name}_processes"))  # type: ignore[attr-defined]
    client = log.server.client
    names = client.smembers(f"{{{log.name}}}:processes")
    return {name: time.time() + client.pttl(f"{{{log.name}}}:alive:{name.decode()}") / 1000 for name in names}


def _await_renewals(log: SharedLog, hub: Hub, times: int) -> None:
    """Wait until every lease was renewed so many times."""
    for _ in range(times):
        before = _leases(log, hub)
        assert len(before) == 2
        until(lambda before=before: all(end > before[one] + 0.05 for one, end in _leases(log, hub).items()))


def test_while_the_server_is_away_streams_begin_and_afterwards_all_are_seen_again(
    tmp_path: Path, make_hub: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path)
    try:
        first, second = (make_hub(RedisLog(server.url, timeout=0.3, lease=1.0)) for _ in range(2))
        Follower(first, client_id="ada", zone="a")
        Follower(second, client_id="bob")
        server.kill()
        Follower(first, client_id="eve", zone="a")
        assert first.is_present("ada") and first.is_present("eve")
        for act in (second.zones, lambda: second.is_present("ada"), lambda: second.connections(everywhere=True)):
            with pytest.raises(LogError, match="cannot be read"):
                act()
        server.start()
        until(lambda: _sees(second, ["ada", "bob", "eve"]))
        server.client.flushall()
        until(lambda: _sees(second, ["ada", "bob", "eve"]))
        assert "presence on Redis is back" in caplog.text
    finally:
        server.close()


def _sees(hub: Hub, clients: list[str]) -> bool:
    try:
        return [client_id for client_id, _ in seen(hub)] == clients
    except LogError:
        return False


def test_a_forked_child_is_a_process_of_its_own(log: SharedLog) -> None:
    code = """
import os, sys
from ssehub import Hub
from ssehub.log.urls import open_log
hub = Hub(open_log(sys.argv[1], name=sys.argv[2]))
mine = hub.stream(client_id="parent")
next(mine)
child = os.fork()
if not child:
    stream = hub.stream(client_id="child")
    next(stream)
    print(sorted(one.client_id for one in hub.connections(everywhere=True)), len(hub.processes()), flush=True)
    stream.close()
    hub.close()
    os._exit(0)
os.waitpid(child, 0)
print(hub.is_present("parent"), hub.is_present("child"), len(hub.processes()))
mine.close()
hub.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, log.url, log.name],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("['child', 'parent'] 2\nTrue False 1\n", "")


def test_a_thousand_who_come_and_go_at_once_are_all_seen_and_all_forgotten(make: MakeHub) -> None:
    hubs = [make() for _ in range(2)]
    gate = threading.Barrier(100)

    def come_and_go(k: int) -> None:
        gate.wait(GUARD)
        for n in range(5):
            for stay in (False, True):
                stream = hubs[k % 2].stream(client_id=f"client {k}", zone=f"zone {n}")
                next(stream)
                until(functools.partial(hubs[(k + 1) % 2].is_present, f"client {k}", f"zone {n}"), guard=3 * GUARD)
                if stay:
                    kept.append(stream)
                else:
                    stream.close()  # type: ignore[attr-defined]

    kept: list[object] = []
    threads = [threading.Thread(target=come_and_go, args=(k,)) for k in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: all(len(hub.connections(everywhere=True)) == 500 for hub in hubs), guard=3 * GUARD)
    assert len(kept) == 500 and hubs[0].zones() == {f"zone {n}": 100 for n in range(5)}
    for stream in kept:
        stream.close()  # type: ignore[attr-defined]
    until(lambda: all(hub.connections(everywhere=True) == [] and hub.zones() == {} for hub in hubs))


def test_a_client_with_many_sessions_is_seen_whole_however_they_come_and_go(make: MakeHub, log: SharedLog) -> None:
    here, there = make(), make()
    streams: dict[Hub, list[Any]] = {here: [], there: []}

    def come(hub: Hub, count: int, **options: Any) -> None:
        for n in range(count):
            streams[hub].append(hub.stream(client_id="guest", zone=f"zone {n % 3}", **options))
            next(streams[hub][-1])

    def check(hub: Hub) -> None:
        until(lambda: len(hub.connections(client_id="guest", everywhere=True)) == sum(map(len, streams.values())))
        until(lambda: not [one for one in hub.connections(everywhere=True) if one.client_id != "guest"])
        found = hub.connections(everywhere=True)
        assert {str(one.metadata) for one in found} <= {"{'who': 'all'}"}
        there = [one for own in streams for one in own.connections()]
        assert sorted((one.id, one.zone) for one in found) == sorted((one.id, one.zone) for one in there)

    come(here, 100, metadata={"who": "all"})
    come(there, 40)
    bob = Follower(here, client_id="bob", metadata={"who": "all"})
    assert here.is_present("guest") and len(there.connections(client_id="guest", everywhere=True)) == 140
    assert there.get_metadata("guest") == {"who": "all"}, "it is shared"
    bob.leave(here)
    until(lambda: not here.is_present("bob"))
    for hub in streams:
        check(hub)
    rng = random.Random(7)
    for size in (60, 120, 5, 50, 0, 33):
        for hub, own in streams.items():
            rng.shuffle(own)
            while len(own) > size:
                own.pop().close()
            come(hub, size - len(own), metadata={"who": "all"})
        for hub in streams:
            check(hub)
    for own in streams.values():
        while own:
            own.pop().close()
    for hub in streams:
        check(hub)
    if log.kind == "redis":
        for key in log.server.client.scan_iter("*:clients:*"):
            names = log.server.client.hkeys(key)
            assert not [name for name in names if name.startswith(b"guest")], names
    else:
        assert here._log._store.query(f"SELECT client_id FROM {log.name}_clients") == []  # type: ignore[attr-defined]


def test_what_a_client_costs_that_comes_does_not_depend_on_its_other_sessions(
    make_on_redis: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = make_on_redis(), make_on_redis()
    written: list[int] = []
    tell = Ledger.tell

    def count(self: Ledger, process: str, itself: str, clients: Mapping[str, str], *more: Any) -> bool:
        written.append(sum(len(page) for name, page in clients.items()))
        return tell(self, process, itself, clients, *more)

    monkeypatch.setattr(Ledger, "tell", count)
    read: list[int] = []
    look = Ledger.look

    def measure(self: Ledger, *arguments: Any, **options: Any) -> Any:
        found = look(self, *arguments, **options)
        read.append(sum(len(first) + len(further) for _, first, further in found))
        return found

    monkeypatch.setattr(Ledger, "look", measure)
    streams = [hub.stream(client_id="guest") for hub in (here, there) for _ in range(300)]
    for stream in streams:
        next(stream)
    written.clear()
    read.clear()
    for _ in range(3):
        streams.append(here.stream(client_id="guest"))
        next(streams[-1])
    assert len(read) >= 3 and max(read) < 4000 and max(written) < 8000, "300 sessions are some 20,000 characters"
    for stream in streams:
        stream.close()  # type: ignore[attr-defined]


def test_in_a_file_a_client_that_leaves_costs_no_more_if_thousands_stay(tmp_path: Path, make_hub: MakeHub) -> None:
    log = SQLiteLog(tmp_path / "hub.db")
    hub = make_hub(log)
    Follower(hub, client_id="bob")
    store, process = log._store, log.presence.process
    stay = range(2000)
    store.execute(
        [
            (
                f"INSERT INTO {store.prefix}_sessions VALUES (?, ?, ?, '[]', 0)",
                [(process, f"{n}", f"{n}") for n in stay],
            ),
            (f"INSERT INTO {store.prefix}_clients VALUES (?, ?, 'null')", [(process, f"{n}") for n in stay]),
        ]
    )
    steps: list[int] = []
    store._file.read(lambda connection: connection.set_progress_handler(lambda: steps.append(10), 10))  # type: ignore[attr-defined]
    ada = hub.stream(client_id="ada")
    next(ada)
    ada.close()  # type: ignore[attr-defined]
    assert log.presence.settle()
    here = [(one,) for one in sorted(["bob", *map(str, stay)])]
    assert store.query(f"SELECT client_id FROM {store.prefix}_clients ORDER BY client_id") == here
    assert sum(steps) < 20_000, "to look at each of them takes 60,000 steps"


@pytest.mark.postgres
def test_a_process_that_is_late_while_another_forgets_it_is_seen_again_whole(
    postgres_server: PostgresServer, make_hub: MakeHub
) -> None:
    dsn = postgres_server.new_database(f"db_{secrets.token_hex(8)}")
    late, other = (make_hub(PostgresLog(dsn, lease=3600.0)) for _ in range(2))
    Follower(late, client_id="ada", zone="a")
    postgres_server.run("UPDATE ssehub_processes SET expires = 1", dsn=dsn)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT * FROM ssehub_zones WHERE zone = 'a' FOR UPDATE")
        process = late._log.presence.process  # type: ignore[union-attr]
        forgetting = threading.Thread(target=other._log.presence.delete_expired, args=([process],))  # type: ignore[union-attr]
        forgetting.start()
        until(lambda: postgres_server.run(waiting, dsn=dsn) == [(1,)], "the other process to forget the first")
        Follower(late, client_id="bob", zone="b")  # so the lease is renewed
    forgetting.join(GUARD)
    until(lambda: seen(other) == [("ada", ("a",)), ("bob", ("b",))])


def test_orders_that_were_written_while_a_process_could_not_follow_are_obeyed(
    tmp_path: Path, make_hub: MakeHub
) -> None:
    server = RedisServer(tmp_path)
    try:
        first, second = (make_hub(RedisLog(server.url)) for _ in range(2))
        Follower(first, client_id="ada")
        bob = Follower(second, client_id="bob")
        server.client.delete("{ssehub}:log")
        assert first.disconnect("bob") == 1
        bob.join()
    finally:
        server.close()


def test_a_record_that_is_nonsense_harms_nobody(make_on_redis: MakeHub, redis_server: RedisServer) -> None:
    hub, other = make_on_redis(), make_on_redis()
    bob = Follower(other, client_id="bob")
    (key,) = (key for key in redis_server.client.scan_iter("*:clients:*") if redis_server.client.hexists(key, "bob"))
    follower = Follower(hub, client_id="bob")
    for nonsense in ("no json", "[" * 100_000, '[null, ["id", "never"]]', "5"):
        redis_server.client.hset(key, "bob", nonsense)
        (session,) = hub.connections(everywhere=True)
        assert session.id == follower.session_id
    hub.broadcast("x")
    for one in (bob, follower):
        one.wait_for("x")
    follower.leave(hub)
    until(lambda: hub.connections() == [])


def test_metadata_that_becomes_unfit_later_is_told_and_the_others_are_still_seen(
    make: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub, asking = make(lease=1.0), make()
    metadata: dict[str, object] = {"fit": True}
    Follower(hub, client_id="ada", metadata=metadata)
    metadata["fit"] = {1, 2}
    Follower(hub, client_id="ada")
    Follower(hub, client_id="bob")
    assert seen(asking) == [("ada", ("default",)), ("ada", ("default",)), ("bob", ("default",))]
    assert "is not shared with other processes" in caplog.text


def test_closing_does_not_wait_for_a_server_that_does_not_answer(tmp_path: Path, make_hub: MakeHub) -> None:
    server = RedisServer(tmp_path)
    try:
        hub = make_hub(RedisLog(server.url, timeout=3600, lease=3600))
        Follower(hub)
        server.pause()
        closing = threading.Thread(target=hub.close)
        closing.start()
        closing.join(GUARD)
        assert not closing.is_alive()
    finally:
        server.close()


def test_a_child_that_was_forked_while_locks_were_held_can_close(redis_server: RedisServer) -> None:
    code = """
import os, sys, threading
from ssehub import Hub, RedisLog
hub = Hub(RedisLog(sys.argv[1], name=sys.argv[2]))
mine = hub.stream()
next(mine)
log, outbox = hub._log, hub._log._sender.outbox
held, fork = threading.Event(), threading.Event()
def hold():
    with log._followed._lock, log._connecting._lock, log._opening._lock, log._presence._changed, outbox._changed:
        held.set()
        fork.wait()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if not child:
    hub.close()
    os._exit(0)
fork.set()
print(os.waitpid(child, 0)[1])
mine.close()
hub.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, redis_server.url, secrets.token_hex(8)],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_any_number_of_threads_may_ask_at_once(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    hub = Hub(RedisLog(server.url))
    answers: list[bool | Exception] = []

    def ask() -> None:
        try:
            answers.append(hub.is_present("nobody"))
        except LogError as error:
            answers.append(error)

    try:
        assert not hub.is_present("nobody")
        server.client.client_pause(500)  # until all have asked
        threads = [threading.Thread(target=ask) for _ in range(150)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        hub.close()
        server.close()
    assert answers == [False] * 150
