"""The log on Redis when something fails: the server, a thread, another program that writes into the stream."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from werkzeug.test import Client

from ssehub import Hub, LogError, Message, Receipt, RedisLog
from ssehub.backoff import Backoff
from ssehub.integrations.prometheus import HubCollector
from ssehub.service import create_app
from tests.followers import Follower
from tests.redis_server import RedisServer, ask
from tests.streams import GUARD, until
from tests.threads import NoThreads, end_from_outside

MakeHub = Callable[..., Hub]
STREAM = "{ssehub}:log"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Give a server of the test's own, which it may stop, flush and kill."""
    one = RedisServer(tmp_path)
    yield one
    one.close()


def entries(server: RedisServer) -> list[str]:
    """Return the data of all the log holds."""
    found = server.client.xrange(STREAM)
    return [Message.decode(fields[b"d"]).data or "" for _, fields in found if b"d" in fields]  # type: ignore[union-attr]


def failing(hub: Hub) -> list[str]:
    """Return what fails in the background."""
    return sorted(hub.stats()["failing"])


# An outage, however long


def test_after_a_thousand_and_a_hundred_failures_in_a_row_all_goes_on(
    server: RedisServer, make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssehub.background._BACKOFF", Backoff(initial=1e-9, maximum=1e-6))
    monkeypatch.setattr("ssehub.log.redis.writer._BACKOFF", Backoff(initial=1e-9, maximum=1e-6))
    hub = make_hub(RedisLog(server.url, timeout=0.2, outbox=10, lease=1.0))
    follower = Follower(hub, client_id="ada")
    hub.broadcast("before")
    follower.wait_for("before")
    server.client.save()
    server.kill()
    assert hub.broadcast("meanwhile").id == ""
    log = hub._log
    assert isinstance(log, RedisLog)
    threads = [
        log._presence._background,
        *(one._background for one in log._followed._followers.values()),
        *(one.sender for one in log._sender.outbox._queues.values()),
    ]
    assert len(threads) == 3
    until(lambda: all(one._failures > 1100 for one in threads), "many failures", 6 * GUARD)
    assert failing(hub) == sorted(hub.failing) == ["follower", "outbox", "presence"]
    health = Client(create_app(hub)).get("/health")
    assert health.status_code == 200
    assert health.json == {"status": "degraded", "failing": ["follower", "outbox", "presence"]}
    stranger = Client(create_app(hub)).get("/stats")
    assert stranger.json["stats"]["failing"] == {"follower": "", "outbox": "", "presence": ""}
    registry = CollectorRegistry()
    registry.register(HubCollector(hub))
    assert generate_latest(registry).decode().count("ssehub_failing{") == 3
    server.start()
    follower.wait_for("before", "meanwhile")
    hub.broadcast("after")
    follower.wait_for("before", "meanwhile", "after")
    until(lambda: failing(hub) == [])


@pytest.mark.parametrize("name", ["ssehub-redis", "ssehub-presence", "ssehub-watcher"])
def test_a_thread_that_is_ended_is_replaced(server: RedisServer, make_hub: MakeHub, name: str) -> None:
    hub, asking = make_hub(RedisLog(server.url, lease=1.0), heartbeat=0.05), make_hub(RedisLog(server.url))
    follower = Follower(hub, client_id="ada")
    before = end_from_outside(name)
    hub.broadcast("wakes the follower")
    later = Follower(hub, client_id="bob")  # wakes the presence
    until(lambda: not before.is_alive())
    hub.broadcast("after", zone="default")
    follower.wait_for("wakes the follower", "after")
    later.wait_for("after")
    newest = Follower(hub, client_id="eve")
    until(lambda: asking.is_present("eve"))
    heard = len(newest.chunks)
    until(lambda: len(newest.chunks) > heard + 2)  # heartbeats
    until(lambda: failing(hub) == [])


def test_an_outbox_whose_thread_is_ended_still_sends_in_order(server: RedisServer) -> None:
    hub = Hub(RedisLog(server.url, timeout=0.1, outbox=10))
    server.client.replicaof("127.0.0.1", "1")
    assert [hub.broadcast(str(n)).id for n in range(3)] == ["", "", ""]
    before = end_from_outside("ssehub-outbox")
    until(lambda: not before.is_alive())
    server.client.replicaof("NO", "ONE")
    until(lambda: entries(server) == ["0", "1", "2"])
    hub.close()


# Threads that cannot be started


def test_without_a_thread_for_the_outbox_a_message_is_refused_and_the_next_is_sent(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_threads = NoThreads(monkeypatch, "ssehub-outbox")
    hub = Hub(RedisLog(server.url, timeout=0.1, outbox=10))
    server.client.replicaof("127.0.0.1", "1")
    with pytest.raises(LogError, match="no thread can send it later"):
        hub.broadcast("refused")
    assert hub.stats()["unsent"] == 0
    no_threads.names.clear()
    assert hub.broadcast("kept").id == ""
    server.client.replicaof("NO", "ONE")
    until(lambda: entries(server) == ["kept"])
    hub.close()


def test_what_waits_is_sent_at_the_end_though_no_thread_can_be_started(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_threads = NoThreads(monkeypatch)
    hub = Hub(RedisLog(server.url, timeout=0.1, outbox=10))
    server.client.replicaof("127.0.0.1", "1")
    hub.broadcast("kept")
    no_threads.names.add("ssehub-outbox")
    before = end_from_outside("ssehub-outbox")  # it cannot be replaced
    until(lambda: not before.is_alive())
    server.client.replicaof("NO", "ONE")
    hub.close(GUARD)
    assert entries(server) == ["kept"]


@pytest.mark.parametrize("name", ["ssehub-redis", "ssehub-presence", "ssehub-watcher"])
def test_without_a_thread_a_client_comes_back_later_or_is_served(
    server: RedisServer, make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    no_threads = NoThreads(monkeypatch, name)
    hub = make_hub(RedisLog(server.url))
    first = Follower(hub, client_id="ada")
    if name != "ssehub-presence":
        first.join()
        assert b"retry: " in first.chunks[-1]
    no_threads.names.clear()
    second = Follower(hub, client_id="bob")
    hub.broadcast("x")
    second.wait_for("x")
    until(lambda: failing(hub) == [])


# A server that does not answer


def test_clients_that_come_at_once_wait_for_one_attempt_together_and_closing_waits_for_none(
    server: RedisServer,
) -> None:
    hub = Hub(RedisLog(server.url, timeout=2.0))
    server.pause()
    before = time.monotonic()
    sent_away: list[bytes] = []
    clients = [threading.Thread(target=lambda: sent_away.append(b"".join(hub.stream()))) for _ in range(20)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(GUARD)
    assert len(sent_away) == 20 and all(chunk.startswith(b"retry: ") for chunk in sent_away)
    # One after the other they would have taken twenty times as long as an attempt, which is half a second.
    assert time.monotonic() - before < 8
    hub.close()


def test_a_hundred_and_twenty_senders_wait_no_longer_than_one(server: RedisServer) -> None:
    hub = Hub(RedisLog(server.url, timeout=3.0))
    hub.broadcast("before")
    server.pause()
    waited: list[float] = []

    def send() -> None:
        before = time.monotonic()
        with pytest.raises(LogError):
            hub.broadcast("lost, or not")
        waited.append(time.monotonic() - before)

    senders = [threading.Thread(target=send) for _ in range(120)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(3 * GUARD)
    assert len(waited) == 120 and max(waited) < 5
    hub.close()


def test_closing_takes_no_longer_than_it_may(server: RedisServer, make_hub: MakeHub) -> None:
    hub = make_hub(RedisLog(server.url, timeout=60.0, outbox=10))
    follower = Follower(hub, client_id="ada")
    server.pause()

    def send() -> None:
        with pytest.raises(LogError):
            hub.broadcast("x")

    sending = threading.Thread(target=send)
    sending.start()
    until(lambda: hub._log._sender._writer is not None)  # type: ignore[attr-defined]
    before = time.monotonic()
    hub.close(0.5)
    assert time.monotonic() - before < GUARD
    follower.join()
    sending.join(GUARD)
    assert not sending.is_alive()


def test_streams_here_are_ended_although_other_processes_cannot_be_told(server: RedisServer, make_hub: MakeHub) -> None:
    hub = make_hub(RedisLog(server.url, timeout=0.2))
    follower = Follower(hub, client_id="ada")
    server.pause()
    with pytest.raises(LogError):
        hub.disconnect("ada")
    follower.join()


# An attempt without an answer


@pytest.mark.parametrize("outbox", [0, 10])
def test_a_message_whose_attempt_got_no_answer_is_written_once_though_the_log_was_trimmed_since(
    server: RedisServer, outbox: int
) -> None:
    first = Hub(RedisLog(server.url, size=10, timeout=2.0, outbox=outbox))
    second = Hub(RedisLog(server.url, size=10))
    first.broadcast("one")
    for n in range(12):
        second.broadcast(str(n))
    server.pause()
    going_on = threading.Timer(0.8, server.go_on)  # an attempt takes half a second
    going_on.start()
    first.broadcast("another")
    until(lambda: "another" in entries(server))
    for n in range(3):
        first.broadcast(f"after {n}")
    until(lambda: first.stats()["unsent"] == 0)
    assert entries(server)[-4:] == ["another", "after 0", "after 1", "after 2"]
    assert entries(server).count("another") == 1
    going_on.join()
    for hub in (first, second):
        hub.close()


def test_the_attempts_of_many_threads_are_each_written_once_while_the_server_stops_and_goes_on(
    server: RedisServer,
) -> None:
    hub = Hub(RedisLog(server.url, size=5, timeout=2.0, outbox=1000))
    receipts: list[Receipt] = []
    threads = [
        threading.Thread(target=lambda: receipts.extend(hub.broadcast(str(n)) for n in range(50))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for _ in range(3):
        server.pause()
        time.sleep(0.7)  # longer than an attempt
        server.go_on()
        until(lambda: not hub.failing)
    for thread in threads:
        thread.join()
    until(lambda: hub.stats()["unsent"] == 0)
    hub.close()
    ((last, _),) = server.client.xrevrange(STREAM, count=1)  # type: ignore[misc]
    # Each entry has the next number, and a message that was written twice would have two.
    assert last.decode().partition("-")[2] == str(len(receipts)) == "200"


# What others write

STRANGE = {
    "no link": {"foreign": "entry"},
    "another link": {"h": "nonsense"},
    "a link of capitals": {"h": "0123ABCD|00000000"},
    "no message": {"h": None},
    "a number of 400 digits": {"h": None, "r": f'{{"t": {"9" * 400}}}', "d": "data: x\n\n"},
    "infinity": {"h": None, "r": '{"t": 1e999}', "d": "data: x\n\n"},
    "brackets": {"h": None, "r": "[" * 100_000, "d": "data: x\n\n"},
    "no object": {"h": None, "r": "5", "d": "data: x\n\n"},
    "no such command": {"h": None, "r": '{"c": "ada", "o": ["format", null, null, null]}', "d": ": x\n\n"},
    "a version of infinity": {"h": None, "r": '{"c": "ada", "o": ["metadata", null, 1, [1e999, 1]]}', "d": ": x\n\n"},
    "no text": {"h": None, "r": "{}", "d": b"data: \xff\n\n"},
}


@pytest.mark.parametrize("strange", STRANGE)
def test_what_others_write_into_the_stream_is_skipped_and_counted(
    server: RedisServer, make_hub: MakeHub, strange: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub = make_hub(RedisLog(server.url))
    follower = Follower(hub, client_id="ada")
    hub.broadcast("before")
    follower.wait_for("before")
    ((id, fields),) = server.client.xrevrange(STREAM, count=1)  # type: ignore[misc]
    written = dict(STRANGE[strange])
    if written["h" if "h" in written else "foreign"] is None:
        written["h"] = b"0123abcd|" + fields[b"h"][:8]
        epoch, offset = id.decode().split("-")
        server.client.xadd(STREAM, written, id=f"{epoch}-{int(offset) + 1}")  # type: ignore[arg-type]
    else:
        server.client.xadd(STREAM, written)  # type: ignore[arg-type]
    until(lambda: hub.stats()["unreadable"] == 1)
    hub.broadcast("after")
    follower.wait_for("before", "after")
    assert caplog.text.count("was not written by ssehub") == 1 and failing(hub) == []
    again = make_hub(RedisLog(server.url))
    Follower(again, since="oldest").wait_for("before", "after")
    assert hub.get_metadata("ada") is None


def test_a_stream_that_others_keep_writing_into_still_brings_every_message(
    server: RedisServer, make_hub: MakeHub
) -> None:
    hub = make_hub(RedisLog(server.url))
    follower = Follower(hub)
    for n in range(2):
        for _ in range(150):
            server.client.xadd(STREAM, {"foreign": "entry"})
        hub.broadcast(str(n))
    follower.wait_for("0", "1")
    assert entries(server) == follower.texts and hub.stats()["gaps"] == 0


def test_a_log_begins_after_entries_of_others(server: RedisServer, make_hub: MakeHub) -> None:
    for n in range(3):
        server.client.xadd(STREAM, {"foreign": "entry"}, id=f"99999999999999-{n}")
    hub = make_hub(RedisLog(server.url))
    follower = Follower(hub)
    hub.broadcast("x")
    follower.wait_for("x")
    assert ask(server, "XLEN", STREAM) == 5


# Logging is the application's code


class Broadcasting(logging.Handler):
    """Send every log record through a hub, as a page that shows a server's log does."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())
        try:
            self._hub.broadcast(self.format(record))
        except LogError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Print nothing."""


@pytest.mark.parametrize("outbox", [0, 1000])
def test_a_log_handler_that_sends_through_the_hub_neither_hangs_nor_recurses(server: RedisServer, outbox: int) -> None:
    hub = Hub(RedisLog(server.url, timeout=0.1, outbox=outbox))
    follower = Follower(hub, socket=False)
    handler = Broadcasting(hub)
    logger = logging.getLogger("ssehub")
    logger.addHandler(handler)
    try:
        server.kill()

        def work() -> None:
            for n in range(3):
                logger.warning("line %d", n)
                with pytest.raises(LogError) if not outbox else memoryview(b""):
                    hub.broadcast("work")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * GUARD)
            assert not thread.is_alive()
        until(lambda: any("cannot be followed" in line for line in handler.seen))
        server.start()
        until(lambda: failing(hub) == [])
        assert hub.broadcast("after").id or until(lambda: hub.stats()["unsent"] == 0)
    finally:
        logger.removeHandler(handler)
        hub.close()
    follower.join()
    assert len(handler.seen) < 40


# What an attack found


def test_senders_that_were_killed_take_no_turn_from_others(server: RedisServer) -> None:
    hub = Hub(RedisLog(server.url, timeout=2.0))
    hub.broadcast("before")
    writer = hub._log._sender._writer  # type: ignore[attr-defined]
    writer._turns.update({-number: time.monotonic() - 1 for number in range(1, 100)})  # greenlets that are gone
    assert hub.broadcast("after").id and entries(server) == ["before", "after"]
    hub.close()


def test_an_answer_to_another_command_is_not_taken_for_ones_own(server: RedisServer) -> None:
    hub = Hub(RedisLog(server.url))
    hub.broadcast("first")
    pool = hub._log._client.connection_pool  # type: ignore[attr-defined]
    connection = pool.get_connection()
    connection.send_command("ECHO", "an answer that nobody reads")
    pool.release(connection)
    for n in range(3):
        place = hub.broadcast(str(n)).id
        ((id, _),) = server.client.xrevrange(STREAM, count=1)  # type: ignore[misc]
        assert place.split(".")[1] == id.decode().split("-")[1]
    assert entries(server) == ["first", "0", "1", "2"]
    hub.close()


@pytest.mark.parametrize("deleted", [1, 2])
@pytest.mark.parametrize("moved", [False, True])
def test_after_entries_were_deleted_by_hand_messages_are_accepted(
    server: RedisServer, make_hub: MakeHub, deleted: int, moved: bool
) -> None:
    hub = make_hub(RedisLog(server.url))
    follower = Follower(hub)
    for n in range(4):
        hub.broadcast(str(n))
    follower.wait_for("0", "1", "2", "3")
    newest = server.client.xrevrange(STREAM, count=deleted)
    server.client.xdel(STREAM, *[id for id, _ in newest])  # type: ignore[misc]
    if moved:
        ask(server, "XSETID", STREAM, newest[0][0].decode().split("-")[0] + "-1000")  # type: ignore[index]
    hub.broadcast("after")
    until(lambda: "gap " in str(follower.texts))
    hub.broadcast("later")
    follower.wait_for_last("later")
    assert failing(hub) == []


@pytest.mark.parametrize("id", ["18446744073709551614-5", "1152921504606846977-0", "18446744073709551615-1"])
def test_a_log_begins_in_a_stream_whose_ids_cannot_be_followed(server: RedisServer, make_hub: MakeHub, id: str) -> None:
    server.client.xadd(STREAM, {"foreign": "entry"}, id=id)
    hub = make_hub(RedisLog(server.url))
    follower = Follower(hub)
    hub.broadcast("x")
    follower.wait_for("x")


@pytest.mark.parametrize("trouble", ["memory", "rights"])
def test_what_waits_in_the_outbox_outlasts_errors_that_pass(server: RedisServer, trouble: str) -> None:
    hub = Hub(RedisLog(server.url, timeout=0.1, outbox=10))
    hub.broadcast("before")
    server.client.replicaof("127.0.0.1", "1")
    assert [hub.broadcast(text).id for text in ("one", "two")] == ["", ""]
    if trouble == "memory":
        server.client.config_set("maxmemory", "1")
    else:
        ask(server, "ACL", "SETUSER", "default", "-evalsha")
    server.client.replicaof("NO", "ONE")
    until(lambda: any(word in hub.failing.get("outbox", "") for word in ("OOM", "maxmemory", "NOPERM", "permission")))
    assert hub.stats()["unsent"] == 2
    if trouble == "memory":
        server.client.config_set("maxmemory", "0")
    else:
        ask(server, "ACL", "SETUSER", "default", "+evalsha")
    until(lambda: entries(server) == ["before", "one", "two"])
    hub.close()


STRANGERS = {
    "a name that is no text": ("SADD", "{ssehub}:processes", b"\xff\xfe"),
    "a process that is a hash": ("HSET", "{ssehub}:alive:0123456789abcdef", "a", "b"),
    "a count that is no number": ("HSET", "{ssehub}:zones:0123456789abcdef", "a", "many"),
    "another kind of key": ("SET", "{ssehub}:where", "x"),
    "another kind of set": ("SET", "{ssehub}:processes", "x"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_keys_of_other_programs_do_not_hide_who_is_connected(
    server: RedisServer, make_hub: MakeHub, stranger: str
) -> None:
    first, second = make_hub(RedisLog(server.url, lease=0.6)), make_hub(RedisLog(server.url, lease=0.6))
    Follower(first, client_id="ada", zone="a")
    until(lambda: second.is_present("ada"))
    server.client.sadd("{ssehub}:processes", "0123456789abcdef")
    command, key, *values = STRANGERS[stranger]
    if command == "SET":
        server.client.delete(key)
    ask(server, command, key, *values)

    def all_is_seen() -> bool:
        try:
            there = second.connections(everywhere=True)
            return (
                second.zones() == {"a": 1}
                and [one.client_id for one in there] == ["ada"]
                and len(second.processes()) > 0
            )
        except LogError:  # until the lease is renewed
            return False

    until(all_is_seen)
    until(lambda: second.is_present("ada") and not first.failing)


def test_a_thread_that_could_not_be_replaced_is_started_by_another(
    server: RedisServer, make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_threads = NoThreads(monkeypatch)
    hub, other = make_hub(RedisLog(server.url, lease=0.6), heartbeat=0.1), make_hub(RedisLog(server.url))
    follower = Follower(hub, client_id="ada")
    no_threads.names.add("ssehub-redis")
    before = end_from_outside("ssehub-redis")
    other.broadcast("wakes it")
    until(lambda: not before.is_alive())
    until(lambda: failing(hub) == ["follower"])
    no_threads.names.clear()
    other.broadcast("after")
    follower.wait_for("wakes it", "after")


def test_a_log_handler_that_asks_for_a_cursor_while_the_log_is_opened_does_not_hang(
    server: RedisServer, make_hub: MakeHub
) -> None:
    Hub(RedisLog(server.url)).broadcast("x")
    server.client.xadd(STREAM, {"foreign": "entry"})
    hub = make_hub(RedisLog(server.url))

    class Asking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            hub.cursor("default")

    handler, logger = Asking(), logging.getLogger("ssehub")
    logger.addHandler(handler)
    try:
        follower = Follower(hub, since="oldest")
    finally:
        logger.removeHandler(handler)
    follower.wait_for("x")
