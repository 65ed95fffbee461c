"""Messages with a key: many processes send them, and a shared log has each once."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ssehub import Hub, Log, Message, Packet, SQLiteLog
from ssehub.log import Interest
from tests.shared_logs import KINDS, SharedLog
from tests.streams import until


@pytest.fixture(params=KINDS)
def shared(request: pytest.FixtureRequest) -> SharedLog:
    return SharedLog(request, request.param)


def keyed(text: str, key: str) -> Packet:
    return Packet(Message(text), "a", broadcast=True, key=key)


def texts(log: Log) -> list[str | None]:
    return [entry.packet.message.data for entry in log.read(log.oldest(), 1000, Interest(("a",))).entries]


@pytest.mark.parametrize("partitions", [1, 3])
def test_of_several_logs_one_writes_a_key(shared: SharedLog, partitions: int) -> None:
    if partitions > 1 and shared.kind != "redis":
        pytest.skip("only a log on Redis has partitions")
    options = {"partitions": partitions} if partitions > 1 else {}
    logs = [shared(**options) for _ in range(3)]
    for log in logs[:2]:  # the third one only sends
        log.start(lambda entry: 0, print)
    ids: list[str] = []

    def send(log: Log, name: str) -> None:
        ids.extend(log.append(keyed(f"{name} {n}", f"key {n}")).id for n in range(30))

    threads = [threading.Thread(target=send, args=(log, str(n))) for n, log in enumerate(logs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(ids) == 90 and len(set(ids)) == 30
        for log in logs[:2]:
            found: Any = until(lambda log=log: len(got := texts(log)) >= 30 and got)  # type: ignore[misc]
            assert sorted(int(text.split()[1]) for text in found) == list(range(30))
        everyone = Packet(Message("to all"), broadcast=True, key="k")
        first, again = logs[0].append(everyone), logs[1].append(everyone)
        assert again.id == first.id and again.repeats is not None and first.repeats is None
    finally:
        for log in logs:
            log.close()


def test_a_key_of_a_lost_log_is_free(redis_server: Any) -> None:
    name = "lost_keys"
    from ssehub.log.redis import RedisLog

    log = RedisLog(redis_server.url, name=name)
    log.append(keyed("old", "k"))
    redis_server.client.delete(f"{{{name}}}:log")
    assert log.append(keyed("new", "k")).repeats is None
    again = log.append(keyed("newer", "k"))
    assert again.repeats is not None and again.repeats.data == "new"
    redis_server.client.set(f"{{{name}}}:log:once", "of another program")
    log.append(keyed("another", "l"))
    assert log.append(keyed("another", "l")).repeats is not None
    log.close()


def test_the_keys_of_dropped_entries_take_no_memory_on_redis(redis_server: Any) -> None:
    from ssehub.log.redis import RedisLog

    log = RedisLog(redis_server.url, name="many_keys", size=5)
    for n in range(30):
        log.append(keyed("x", f"key {n}"))
    assert redis_server.client.zcard("{many_keys}:log:once") == 5
    log.close()


def test_within_a_transaction_a_key_is_written_once_on_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    hub = Hub(SQLiteLog(path))
    for text in ("first", "second"):
        connection = sqlite3.connect(path)
        hub.broadcast(text, zone="a", key="k", within=connection)
        hub.broadcast("no key", zone="a", within=connection)
        connection.commit()
        connection.close()
    again = hub.broadcast("third", zone="a", key="k")
    assert again.repeats is not None and again.repeats.data == "first"
    assert [message.data for message in hub.history("a").messages] == ["first", "no key", "no key"]
    hub.close()


def test_within_transactions_a_key_is_written_once_on_postgres(request: pytest.FixtureRequest) -> None:
    shared = SharedLog(request, "postgres")
    log = shared()
    with psycopg.connect(shared.url) as connection:
        for text in ("first", "second"):
            log.append_within(keyed(text, "k"), connection)
            log.append_within(Packet(Message("no key"), "a", broadcast=True), connection)
    with psycopg.connect(shared.url) as connection:
        log.append_within(keyed("third", "k"), connection)
    assert log.append(keyed("fourth", "k")).repeats is not None
    log.start(lambda entry: 0, print)
    assert until(lambda: texts(log)) == ["first", "no key", "no key"]
    with psycopg.connect(shared.url) as connection:
        log.append_within(keyed("fifth", "k"), connection)
        log.append_within(Packet(Message("last"), "a", broadcast=True), connection)
    until(lambda: texts(log)[-1] == "last")
    assert texts(log) == ["first", "no key", "no key", "last"]
    log.close()
