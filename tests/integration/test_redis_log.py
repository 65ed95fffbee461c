"""RedisLog: several processes, one hub; and what a server does to a log when it fails. Against a real server."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from benchmarks.proxy import Proxy
from ssehub import Backoff, Client, Hub, HubClosed, LogError, Message, Packet, Receipt, RedisLog
from ssehub.log import Position
from ssehub.log.urls import open_log
from ssehub.wsgi.access import check_origins
from tests.apps.shared import CLIENTS, zone_of
from tests.followers import Follower
from tests.redis_server import RedisServer
from tests.servers import ROOT, answers, free_port, gunicorn, process
from tests.streams import GUARD, Stream, call, until

MakeHub = Callable[..., Hub]
WORKERS = 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Give a server of the test's own, which it may stop, flush and kill."""
    one = RedisServer(tmp_path)
    yield one
    one.close()


@pytest.fixture
def make(server: RedisServer, make_hub: MakeHub) -> Callable[..., Hub]:
    """Give a function that makes hubs on one log, each as if in a process of its own."""
    return lambda **options: make_hub(RedisLog(server.url, size=options.pop("size", 1000)), **options)


def entries(server: RedisServer) -> list[str]:
    """Return the data of all the log holds."""
    found = server.client.xrange("{ssehub}:log")
    return [Message.decode(fields[b"d"]).data or "" for _, fields in found if b"d" in fields]  # type: ignore[union-attr]


def test_what_one_process_sends_reaches_the_clients_of_all(make: Callable[..., Hub]) -> None:
    first, second = make(), make()
    ada, bob = Follower(first, client_id="ada", zone="a"), Follower(second, client_id="bob", zone="b")
    first.broadcast("all")
    first.send("bob", "to bob")
    second.broadcast("zone a", zone="a")
    second.broadcast("not ada", exclude=[ada.session_id])
    assert first.broadcast("end").queued == 1
    ada.wait_for("all", "zone a", "end")
    bob.wait_for("all", "to bob", "not ada", "end")
    events = [event for event in ada.events if event.data == "end"]
    assert events[0].id == next(event.id for event in bob.events if event.data == "end")


def test_a_client_goes_on_at_another_process_where_it_was(make: Callable[..., Hub]) -> None:
    first, second = make(), make()
    ada = Follower(first)
    for n in range(5):
        first.broadcast(str(n))
    ada.wait_for("0", "1", "2", "3", "4")
    id = next(event.id for event in ada.events if event.data == "1")
    Follower(second, last_event_id=id).wait_for("2", "3", "4")


def test_history_outlives_all_processes(make: Callable[..., Hub]) -> None:
    first = make()
    id = first.broadcast("before").id
    first.broadcast(Message("own", id="order 7"))
    first.broadcast("after")
    first.close()
    again = make()
    Follower(again, last_event_id=id).wait_for("own", "after")
    Follower(again, last_event_id="order 7").wait_for("after")
    Follower(again, since="oldest").wait_for("before", "own", "after")


def test_a_process_that_only_sends_starts_no_thread(server: RedisServer, make: Callable[..., Hub]) -> None:
    follower = Follower(make())
    before = threading.active_count()
    sender = Hub(RedisLog(server.url))
    assert sender.broadcast("hello").queued == 0
    assert threading.active_count() == before
    follower.wait_for("hello")
    code = (
        "import sys; from ssehub import Hub, RedisLog; print(Hub(RedisLog(sys.argv[1])).broadcast('from a script').id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, server.url], capture_output=True, text=True, timeout=30, check=True, cwd=ROOT
    )
    assert done.stderr == ""
    follower.wait_for("hello", "from a script")
    assert follower.events[-1].id == done.stdout.strip()


def test_an_empty_log_has_a_place_so_nobody_is_told_a_gap_with_the_first_message(make: Callable[..., Hub]) -> None:
    hub = make()
    follower = Follower(hub)
    hub.broadcast("first")
    follower.wait_for("first")


def test_a_flushed_log_is_told_and_what_comes_then_arrives(server: RedisServer, make: Callable[..., Hub]) -> None:
    hub = make()
    everyone, quiet = Follower(hub), Follower(hub, zone="quiet")
    hub.broadcast("before", zone="default")
    everyone.wait_for("before")
    server.client.flushall()
    until(lambda: everyone.texts[-1] == "gap epoch None" and quiet.texts == ["gap epoch None"])
    hub.broadcast("after")
    everyone.wait_for("before", "gap epoch None", "after")
    quiet.wait_for("gap epoch None", "after")


def test_a_log_that_was_rolled_back_is_told_while_it_is_quiet(server: RedisServer, make: Callable[..., Hub]) -> None:
    hub = make()
    follower = Follower(hub)
    hub.broadcast("kept")
    dump = server.client.dump("{ssehub}:log")
    hub.broadcast("lost")
    follower.wait_for("kept", "lost")
    server.client.restore("{ssehub}:log", 0, dump, replace=True)  # type: ignore[arg-type]
    follower.wait_for("kept", "lost", "gap ahead None")
    hub.broadcast("after")
    follower.wait_for("kept", "lost", "gap ahead None", "after")


def test_a_log_that_was_rolled_back_and_has_grown_beyond_is_told_as_a_fork(
    server: RedisServer, make: Callable[..., Hub]
) -> None:
    hub, other = make(), Hub(RedisLog(server.url))
    follower, sleeper = Follower(hub), Follower(hub, zone="sleeper")
    for n in range(1, 8):
        other.broadcast(str(n), zone="default")
    dump = server.client.dump("{ssehub}:log")
    for n in range(8, 12):
        other.broadcast(str(n), zone="default")
    follower.wait_for(*map(str, range(1, 12)))
    # In one transaction: the followers see the log at 11 and then at 12, and never at 7.
    script = "redis.call('RESTORE', KEYS[1], 0, ARGV[1], 'REPLACE') return redis.call('XLEN', KEYS[1])"
    with server.client.pipeline(transaction=True) as pipe:
        pipe.eval(script, 1, "{ssehub}:log", dump)
        for n in range(8, 13):
            epoch = epoch_of(server)
            previous = "00000000" if n == 8 else f"{n - 1:08x}"
            link = f"{n:08x}|{previous if n > 8 else last_nonce(server, dump)}"
            pipe.xadd("{ssehub}:log", {"h": link, "r": '{"z":"sleeper"}', "d": f"data: new {n}\n\n"}, id=f"{epoch}-{n}")
        pipe.execute()
    follower.wait_for(*map(str, range(1, 12)), "gap fork None")
    sleeper.wait_for(*(f"new {n}" for n in range(8, 13)))  # it has missed nothing: what was lost was not for it


def epoch_of(server: RedisServer) -> int:
    ((id, _),) = server.client.xrevrange("{ssehub}:log", count=1)  # type: ignore[misc]
    return int(id.split(b"-")[0])


def last_nonce(server: RedisServer, dump: object) -> str:
    server.client.restore("copy", 0, dump, replace=True)  # type: ignore[arg-type]
    ((_, fields),) = server.client.xrevrange("copy", count=1)  # type: ignore[misc]
    return str(fields[b"h"][:8].decode())


@pytest.mark.parametrize("fault", ["none", "flush"])
def test_a_place_that_a_faster_process_gave_is_waited_for_and_not_called_a_gap(server: RedisServer, fault: str) -> None:
    gate, fast, slow = threading.Event(), RedisLog(server.url), RedisLog(server.url)
    slow.start(lambda entry: int(gate.wait(GUARD)), lambda tail, orders: None)  # a process that falls behind
    fast.append(Packet(Message("slow is held up by this"), broadcast=True))
    until(lambda: slow.read(slow.oldest(), 1).entries)
    if fault == "flush":
        server.client.flushall()
    fast.start(lambda entry: 0, lambda tail, orders: None)
    own = fast.append(Packet(Message("a", id="own"), broadcast=True)).id
    threading.Timer(0.3, gate.set).start()
    assert slow.locate(own) == fast.end()
    gate.clear()
    for log in (slow, fast):
        log.append(Packet(Message("b"), broadcast=True))
    threading.Timer(0.3, gate.set).start()
    slow.catch_up(fast.end())
    assert slow.read(fast.end(), 10).gap is None
    slow.close()
    fast.close()


def test_a_place_that_cannot_be_judged_sends_the_client_away_with_it(
    server: RedisServer, make_hub: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub = make_hub(RedisLog(server.url, timeout=0.3))
    Follower(hub)
    server.kill()
    late = Follower(hub, last_event_id=str(Position(1, 1, "12345678")))
    late.join()
    assert late.texts == [] and b"retry: " in late.chunks[-1] and "cannot be read" in caplog.text


def test_what_was_trimmed_during_an_outage_is_told(server: RedisServer, make: Callable[..., Hub]) -> None:
    hub = make(size=5)
    follower = Follower(hub)
    hub.broadcast("seen")
    follower.wait_for("seen")
    server.client.client_kill_filter(_type="normal", skipme=True)
    with server.client.pipeline(transaction=True) as pipe:  # all at once: the follower comes too late
        log = RedisLog(server.url, size=5)
        for n in range(10):
            epoch = epoch_of(server)
            previous = f"{n:08x}" if n else last_nonce(server, server.client.dump("{ssehub}:log"))
            link = f"{n + 1:08x}|{previous}"
            pipe.xadd("{ssehub}:log", {"h": link, "r": "{}", "d": f"data: {n}\n\n"}, id=f"{epoch}-{n + 2}", maxlen=5,
                      approximate=False)  # fmt: skip
        pipe.execute()
        log.close()
    follower.wait_for("seen", "gap trimmed None", "5", "6", "7", "8", "9")


@contextmanager
def connections_killed(server: RedisServer, every: float) -> Iterator[None]:
    """Kill all connections to a server again and again while the block lasts."""
    done = threading.Event()

    def kill() -> None:
        with redis.Redis(port=server.port) as client:
            while not done.wait(every):
                client.client_kill_filter(_type="normal", skipme=True)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        done.set()
        killer.join()


def test_publishing_while_connections_are_killed_writes_each_message_once(server: RedisServer) -> None:
    hub = Hub(RedisLog(server.url, size=100_000))
    sent: list[list[str]] = [[] for _ in range(4)]

    def publish(k: int) -> None:
        for n in range(1500):
            hub.broadcast(f"{k} {n}")
            sent[k].append(f"{k} {n}")

    publishers = [threading.Thread(target=publish, args=(k,)) for k in range(4)]
    with connections_killed(server, every=0.004):
        for thread in publishers:
            thread.start()
        for thread in publishers:
            thread.join()
    written = entries(server)
    assert len(written) == 6000 and sorted(written) == sorted(text for part in sent for text in part)
    for k in range(4):
        assert [text for text in written if text.startswith(f"{k} ")] == sent[k]
    hub.close()


def test_without_a_server_an_append_is_an_error_within_its_timeout_and_streams_stay(
    server: RedisServer, make_hub: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub = make_hub(RedisLog(server.url, timeout=0.3), heartbeat=0.05)
    follower = Follower(hub)
    hub.broadcast("before")
    server.kill()
    with pytest.raises(LogError, match="not accepted"):
        hub.broadcast("lost")
    heard = len(follower.chunks)
    until(lambda: len(follower.chunks) > heard + 2)  # heartbeats go on
    late = Follower(hub, since="oldest")  # so do new streams, from memory
    late.wait_for("before")
    server.start()
    until(lambda: follower.texts[-1] == "gap epoch None")  # it had written nothing to disk
    hub.broadcast("after")
    follower.wait_for("before", "gap epoch None", "after")


def test_an_outbox_keeps_what_is_sent_during_an_outage_in_order_and_nobody_gets_it_before(
    server: RedisServer, make: Callable[..., Hub], make_hub: MakeHub
) -> None:
    hub = make_hub(RedisLog(server.url, timeout=0.2, outbox=5))
    log, follower = hub._log, Follower(hub)
    assert isinstance(log, RedisLog)
    hub.broadcast("before")
    follower.wait_for("before")
    server.client.save()
    server.kill()
    assert [hub.broadcast(str(n)) for n in range(4)] == [Receipt("", 0)] * 4
    assert hub.broadcast(Message("4", id="own")) == Receipt("own", 0)
    with pytest.raises(LogError, match="full: 5"):
        hub.broadcast("one too many")
    assert log.unsent == 5 and follower.texts == ["before"]
    server.start()
    follower.wait_for("before", "0", "1", "2", "3", "4")
    until(lambda: log.unsent == 0)
    assert hub.broadcast("after").id
    follower.wait_for("before", "0", "1", "2", "3", "4", "after")
    assert entries(server) == follower.texts


def test_a_script_that_ends_without_closing_still_sends_or_tells(server: RedisServer) -> None:
    code = """
import sys, threading, redis
from ssehub import Hub, RedisLog
hub = Hub(RedisLog(sys.argv[1], timeout=float(sys.argv[2]), outbox=5))
hub._log.unsent, setattr(hub._log, "_timeout", 0.1)
print([hub.broadcast(str(n)).id for n in range(3)])
"""
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    done = [
        subprocess.run(
            [sys.executable, "-c", code, url, timeout],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
            check=False,
        )
        for url, timeout in ((nobody, "0.2"), (server.url, "30"))
    ]
    assert "3 messages in the outbox were not sent" in done[0].stderr and done[0].stdout == "['', '', '']\n"
    assert done[1].stderr == "" and entries(server) == ["0", "1", "2"]
    server.client.replicaof("127.0.0.1", str(free_port()))
    timer = threading.Timer(2.0, lambda: server.client.replicaof("NO", "ONE"))
    timer.start()
    late = subprocess.run(
        [sys.executable, "-c", code, server.url, "30"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    timer.join()
    assert "wait in the outbox" in late.stderr and "not sent" not in late.stderr
    assert entries(server) == ["0", "1", "2", "0", "1", "2"]


def test_what_was_never_sent_is_sent_again_though_the_log_was_lost_meanwhile(server: RedisServer) -> None:
    hub = Hub(RedisLog(server.url, timeout=GUARD, outbox=5))
    hub.broadcast("before")
    server.kill()
    timer = threading.Timer(0.5, server.start)
    timer.start()
    hub.broadcast("tried while nobody was there")
    timer.join()
    assert entries(server) == ["tried while nobody was there"]
    hub.close()


def test_an_attempt_without_an_answer_is_not_called_refused(server: RedisServer) -> None:
    hub = Hub(RedisLog(server.url, timeout=0.2))
    hub.broadcast("before")
    server.pause()
    with pytest.raises(LogError, match="not known"):
        hub.broadcast("perhaps")
    hub.close()


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_under_preload_workers_patched_or_not_follow_and_send(server: RedisServer, worker: str) -> None:
    port = free_port()
    command = list(gunicorn(worker, port, "--preload"))
    command[command.index("-w") + 1] = "2"
    command[-1] = "tests.apps.shared:app"
    with process(*command, LOG_URL=server.url):
        until(lambda: answers(port))
        streams = [Stream(port, "/events") for _ in range(8)]
        for stream in streams:
            stream.opened()
        for n in range(3):
            assert call(port, "POST", "/send", {"data": str(n), "broadcast": "true"})[0] == 200
        for stream in streams:
            assert stream.data(3) == ["0", "1", "2"]
            stream.close()


def test_closing_waits_for_the_outbox_and_tells_what_is_lost(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(RedisLog(server.url, timeout=GUARD, outbox=5))
    lost = Hub(RedisLog(f"redis://127.0.0.1:{free_port()}/0", timeout=0.1, outbox=5))
    server.client.replicaof("127.0.0.1", str(free_port()))
    hub._log._timeout = 0.1  # type: ignore[attr-defined]
    for one in (hub, lost):
        one.broadcast("1")
        one.broadcast("2")
    hub._log._timeout = GUARD  # type: ignore[attr-defined]
    timer = threading.Timer(0.3, lambda: server.client.replicaof("NO", "ONE"))
    timer.start()
    hub.close()
    assert entries(server) == ["1", "2"] and "not sent" not in caplog.text
    lost.close()
    assert "2 messages in the outbox were not sent" in caplog.text
    with pytest.raises(HubClosed):
        lost.broadcast("x")
    timer.join()


def test_through_an_outbox_each_message_is_written_once_and_in_order_while_connections_are_killed(
    server: RedisServer,
) -> None:
    hub = Hub(RedisLog(server.url, size=100_000, timeout=0.005, outbox=10_000))
    with connections_killed(server, every=0.003):
        receipts = [hub.broadcast(str(n)) for n in range(1500)]
    hub.close(GUARD)
    assert entries(server) == [str(n) for n in range(1500)]
    assert any(not receipt.id for receipt in receipts)


def test_after_an_outage_of_a_server_that_forgot_nothing_streams_go_on_where_they_were(
    tmp_path: Path, make_hub: MakeHub
) -> None:
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    try:
        hub = make_hub(RedisLog(server.url), heartbeat=0.05)
        follower = Follower(hub)
        hub.broadcast("before")
        follower.wait_for("before")
        server.kill()
        heard = len(follower.chunks)
        until(lambda: len(follower.chunks) > heard + 2)
        server.start()
        Hub(RedisLog(server.url)).broadcast("meanwhile")
        hub.broadcast("after")
        follower.wait_for("before", "meanwhile", "after")
    finally:
        server.close()


@pytest.mark.parametrize("behind", [False, True])
def test_a_replica_takes_over_and_what_it_had_not_yet_is_told(tmp_path: Path, make_hub: MakeHub, behind: bool) -> None:
    (tmp_path / "replica").mkdir()
    master, replica = RedisServer(tmp_path), RedisServer(tmp_path / "replica")
    proxy = Proxy(master.port)
    try:
        hub = make_hub(RedisLog(f"redis://127.0.0.1:{proxy.port}/0", timeout=GUARD))
        follower = Follower(hub)
        hub.broadcast("before")
        replica.client.replicaof("127.0.0.1", str(master.port))
        until(lambda: entries(replica) == ["before"])
        if behind:
            replica.client.replicaof("NO", "ONE")
        hub.broadcast("last")
        follower.wait_for("before", "last")
        if not behind:
            until(lambda: entries(replica) == ["before", "last"])
        master.kill()
        replica.client.replicaof("NO", "ONE")
        proxy.turn_to(replica.port)
        proxy.cut(1.0)
        if behind:
            until(lambda: follower.texts[-1] == "gap ahead None")
        hub.broadcast("after")
        until(lambda: follower.texts[-1] == "after")
        assert follower.texts == ["before", "last", *(["gap ahead None"] if behind else []), "after"]
    finally:
        proxy.close()
        master.close()
        replica.close()


def test_scripts_that_the_server_has_forgotten_are_sent_again(server: RedisServer, make: Callable[..., Hub]) -> None:
    hub = make()
    follower = Follower(hub, client_id="ada")
    for n in range(3):
        server.client.script_flush()
        hub.send("ada", str(n), require=True)
    follower.wait_for("0", "1", "2")


def test_what_will_not_work_later_is_an_error_at_once(server: RedisServer) -> None:
    hub = Hub(RedisLog(server.url, timeout=3600))
    server.client.set("{ssehub}:log", "not a stream")
    with pytest.raises(LogError, match="WRONGTYPE"):
        hub.broadcast("x")
    server.client.delete("{ssehub}:log")
    server.client.config_set("maxmemory", "1")
    with pytest.raises(LogError, match=r"OOM|maxmemory"):
        hub.broadcast("x")
    assert server.client.exists("{ssehub}:log") == 0
    server.client.config_set("maxmemory", "0")
    hub.broadcast("x")
    server.client.config_set("maxmemory", "1")
    with pytest.raises(LogError, match=r"OOM|maxmemory"):
        hub.broadcast("y")
    assert entries(server) == ["x"]
    server.client.config_set("maxmemory", "0")
    with pytest.raises(LogError, match="invalid username"):
        Hub(RedisLog(server.url.replace("//", "//nobody:wrong@"), timeout=3600)).broadcast("x")
    hub.close()


def test_a_server_that_is_a_replica_for_a_while_is_waited_for(server: RedisServer) -> None:
    hub = Hub(RedisLog(server.url, timeout=GUARD))
    hub.broadcast("before")
    server.client.replicaof("127.0.0.1", str(free_port()))
    timer = threading.Timer(0.2, lambda: server.client.replicaof("NO", "ONE"))
    timer.start()
    hub.broadcast("after")
    timer.join()
    assert entries(server) == ["before", "after"]
    hub.close()


def test_a_page_that_is_made_while_there_is_no_log_is_told_a_gap_when_there_is(
    server: RedisServer, make_hub: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 3):
        name = secrets.token_hex(4)
        server.kill()
        hub = make_hub(RedisLog(server.url, name=name, partitions=number, timeout=1.0))
        cursors = [hub.cursor(), hub.cursor("a"), hub.cursor(["a", "b"])]
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
        with pytest.raises(TypeError):
            hub.cursor(None)  # type: ignore[arg-type]
        server.start()
        hub.broadcast("which the page does not show", zone="a")
        for cursor in cursors:
            follower = Follower(hub, zone=["a", "b"], last_event_id=cursor)
            until(lambda: follower.texts, "the gap")  # noqa: B023
            assert follower.texts[0] in ("gap epoch None", "gap bad_id None")
        assert Follower(hub, zone="a", last_event_id=hub.cursor("a")).texts == []
        hub.close()
        caplog.clear()


def test_a_client_that_comes_while_there_is_no_log_is_sent_away_for_a_while(make_hub: MakeHub) -> None:
    hub = make_hub(RedisLog(f"redis://127.0.0.1:{free_port()}/0", timeout=0.2))
    assert b"".join(hub.stream()).startswith(b"retry: ")
    with pytest.raises(LogError):
        hub.broadcast("x")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("redis://x",), {"size": 0}),
        (("redis://x",), {"timeout": 0}),
        (("redis://x",), {"name": ""}),
        (("redis://x",), {"lease": 0}),
        (("redis://x",), {"outbox": -1}),
        (("nothing://x",), {}),
        ((None,), {}),
        (("redis://x",), {"size": "10"}),
        (("redis://x",), {"partitions": 1.5}),
        (("redis://x",), {"outbox": True}),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[str], options: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        RedisLog(*arguments, **options)  # type: ignore[arg-type]


def test_a_client_of_ones_own_gives_its_settings(server: RedisServer) -> None:
    with redis.Redis(port=server.port, decode_responses=True) as client:
        hub = Hub(RedisLog(client, name=secrets.token_hex(4)))
        follower = Follower(hub)
        hub.broadcast("\u2603")
        follower.wait_for("\u2603")
        hub.close()


def test_a_preloading_parent_and_its_children_each_follow_for_themselves(server: RedisServer) -> None:
    code = """
import os, sys
from ssehub import Decoder, Hub, RedisLog
hub = Hub(RedisLog(sys.argv[1]))
hub.broadcast("from the parent")
next(hub.stream())
children = []
for n in range(3):
    child = os.fork()
    if not child:
        stream, decoder = hub.stream(since="oldest"), Decoder()
        hub.broadcast(f"from child {n}")
        got = []
        while not any(m.data == f"from child {n}" for m in got):
            got += decoder.feed(next(stream))
        stream.close()
        hub.close()
        os._exit(0)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
hub.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, server.url],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[0, 0, 0]\n", "")
    assert sorted(entries(server)) == ["from child 0", "from child 1", "from child 2", "from the parent"]


def test_four_workers_four_hundred_streams_eight_publishers_twenty_thousand_messages(server: RedisServer) -> None:
    port = free_port()
    command = list(gunicorn("gthread", port, threads=200))
    command[command.index("-w") + 1] = str(WORKERS)
    command[-1] = "tests.apps.shared:app"
    received: list[list[str]] = [[] for _ in range(CLIENTS)]
    workers: set[str] = set()
    opened = threading.Semaphore(0)
    clients: list[Client] = []
    with process(*command, LOG_URL=server.url), contextlib.ExitStack() as stack:
        stack.callback(lambda: [client.stop() for client in clients])
        for n, got in enumerate(received):
            client = Client(
                f"http://127.0.0.1:{port}/events?client_id=c{n}&zone={zone_of(n)}",
                backoff=Backoff(0.05, 2, 0.5),
                reconnect_delay=0.1,
                response_callback=lambda response: workers.add(response.headers.get("X-Worker", "")),
            )
            client.on_event("ssehub.open", lambda message: opened.release())
            client.on_event(lambda message, got=got: got.append(message.data or ""))
            clients.append(client.start())
        for _ in clients:
            assert opened.acquire(timeout=6 * GUARD)
        publishers = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.apps.shared", server.url, str(seed), "2500"],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            for seed in range(8)
        ]
        told = [json.loads(line) for one in publishers for line in one.communicate(timeout=120)[0].splitlines()]
        assert len(told) == 20_000 and all(one["ok"] for one in told)
        Hub(RedisLog(server.url, size=100_000)).broadcast("end")
        until(lambda: all(got[-1:] == ["end"] for got in received), "all clients to receive the last", 6 * GUARD)
        for client in clients:
            client.stop()
        for client in clients:
            assert client.stop(GUARD)
    expected: list[list[str]] = [[] for _ in range(CLIENTS)]
    for _, fields in server.client.xrange("{ssehub}:log"):  # type: ignore[union-attr]
        if b"r" in fields:
            route, data = json.loads(fields[b"r"]), Message.decode(fields[b"d"]).data or ""
            for n in range(CLIENTS):
                if route.get("c", f"c{n}") == f"c{n}" and route.get("z", zone_of(n)) == zone_of(n):
                    expected[n].append(data)
    assert sum(map(len, expected)) > 500_000 and received == expected
    assert len(workers) > 1  # one that starts late may find no client left


def test_an_entry_is_written_as_the_documents_say(server: RedisServer) -> None:
    log = RedisLog(server.url, name="own")
    before = time.time()
    log.append(Packet(Message("x", "e"), "zone", "ada", exclude=frozenset(["s"])))
    (begin, (id, fields)) = server.client.xrange("{own}:log")  # type: ignore[misc]
    assert begin[0].endswith(b"-0") and id.endswith(b"-1") and fields[b"h"].endswith(b"|00000000")
    route = json.loads(fields[b"r"])
    assert before - 0.001 < route.pop("t") < time.time() + 0.001
    assert route == {"z": "zone", "c": "ada", "x": ["s"]} and fields[b"d"] == b"event: e\ndata: x\n\n"
    log.close()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Hub("redis://user:s3cret/x@localhost"),
        lambda: Hub("mysql://user:s3cret@localhost"),
        lambda: RedisLog("redis://user:s3cret/x@localhost"),
        lambda: RedisLog("user:s3cret@localhost:6379"),
        lambda: RedisLog("redis://user:s3cret@[localhost"),
        lambda: RedisLog("redis+cluster://user:s3cret?x@localhost"),
        lambda: open_log("redis:/user:s3cret@localhost"),
        lambda: check_origins(["https://user:s3cret@app.example"]),
    ],
)
def test_no_error_shows_a_password(wrong: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, TypeError)) as raised:
        wrong()
    assert "s3cret" not in str(raised.value)
    assert raised.value.__cause__ is None and (raised.value.__suppress_context__ or not raised.value.__context__)
