"""The log in PostgreSQL, on real servers: order, transactions, rights, faults."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from ssehub import Hub, LogError, Message, Packet, PostgresLog, Receipt
from ssehub.cli import main
from ssehub.log import Entry
from tests.followers import Follower
from tests.postgres_server import PostgresServer, program
from tests.servers import ROOT, free_port
from tests.streams import GUARD, until

MakeHub = Callable[..., Hub]


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """Give a server of the test's own, which it may stop, pause and kill."""
    one = PostgresServer()
    yield one
    one.close()


@pytest.fixture
def dsn(postgres_server: PostgresServer) -> str:
    """Give a database of the test's own on the shared server."""
    return postgres_server.new_database(f"db_{secrets.token_hex(8)}")


def rows(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    """Execute a statement."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def entries(dsn: str, prefix: str = "ssehub") -> list[str]:
    """Return the data of all entries, and check that they have no holes."""
    found = rows(dsn, f"SELECT number, previous, nonce, body FROM {prefix}_entries ORDER BY number")
    for before, after in itertools.pairwise(found):
        assert (after[0], after[1]) == (before[0] + 1, before[2])
    return [Message.decode(body).data or "" for _, _, _, body in found]


class Delivered(list[str]):
    """A list of the data that a log delivers, and whether it was broken."""

    def __init__(self, log: PostgresLog) -> None:
        self.log = log
        self.breaks = -1  # the start is told as one
        log.start(self._take, self._break)

    def _take(self, entry: Entry) -> int:
        self.append(entry.packet.message.data or "")
        return 1

    def _break(self, *_: object) -> None:
        self.breaks += 1


def packet(text: str) -> Packet:
    return Packet(Message(text), broadcast=True)


# Sending


def test_a_message_of_one_process_reaches_the_clients_of_all(dsn: str, make_hub: MakeHub) -> None:
    first, second = make_hub(PostgresLog(dsn)), make_hub(PostgresLog(dsn))
    ada, bob = Follower(first, client_id="ada", zone="a"), Follower(second, client_id="bob", zone="b")
    first.broadcast("all")
    first.send("bob", "to bob")
    second.broadcast("zone a", zone="a")
    second.broadcast("not ada", exclude=[ada.session_id])
    assert first.broadcast("end").queued == 1
    ada.wait_for("all", "zone a", "end")
    bob.wait_for("all", "to bob", "not ada", "end")


def test_no_notification_is_overlooked(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log, others = PostgresLog(dsn), [PostgresLog(dsn) for _ in range(3)]
    seen = Delivered(log)
    until(lambda: log._store._listener.delivers)  # type: ignore[attr-defined]
    monkeypatch.setattr("ssehub.log.postgres.listener._LOOK", 3600.0)
    others[0].append(packet("ends the wait of a second"))
    for n in range(30):  # at the end of each round, nothing comes that would wake the follower later
        run_all([lambda other=other: [other.append(packet("x")) for _ in range(5)] for other in others])
        until(lambda n=n: len(seen) == 1 + 15 * (n + 1))
    for one in (log, *others):
        one.close()


def test_sql_sends_to_zones_and_clients_and_only_what_fits(dsn: str, make_hub: MakeHub) -> None:
    hub = make_hub(PostgresLog(dsn))
    ada, bob = Follower(hub, client_id="ada", zone="a"), Follower(hub, client_id="bob", zone="b")
    for arguments in (
        "data => 'all'", "'a', NULL, NULL, 'zone a'", "NULL, 'bob', 'order', E'two\\r\\nlines\\rand a third'"
    ):  # fmt: skip
        rows(dsn, f"SELECT ssehub_send({arguments})")
    ada.wait_for("all", "zone a")
    bob.wait_for("all", "two\nlines\nand a third")
    assert bob.events[-1].event == "order"
    for arguments, complaint in (
        ("NULL", "data is NULL"),
        ("NULL, NULL, E'a\\nb', 'x'", "line break"),
        ("NULL, NULL, 'ssehub.gap', 'x'", "the hub's own"),
        ("'', NULL, NULL, 'x'", "1 to 255 characters"),
        ("NULL, repeat('x', 256), NULL, 'x'", "1 to 255 characters"),
        ("NULL, E'a\\nb', NULL, 'x'", "control character"),
        ("E'\\u009f', NULL, NULL, 'x'", "control character"),
    ):
        with pytest.raises(psycopg.errors.RaiseException, match=complaint):
            rows(dsn, f"SELECT ssehub_send({arguments})")
    for name in ("a-b", "a b", "ä", "a]b", "\\u00a0", "x" * 255):
        rows(dsn, f"SELECT ssehub_send(E'{name}', E'{name}', NULL, 'x')")
    assert hub.broadcast("end").queued == 2 and hub.stats()["unreadable"] == 0


def test_a_trigger_of_another_user_sends_with_any_search_path(dsn: str, make_hub: MakeHub) -> None:
    hub = make_hub(PostgresLog(dsn, schema="the log"))
    ada = Follower(hub)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("""
            CREATE SCHEMA shop; SET search_path = shop;
            CREATE TABLE orders (id int);
            CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM "the log".ssehub_send(data => 'order ' || new.id); RETURN new; END $$;
            CREATE TRIGGER tell AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tell();
            INSERT INTO orders VALUES (7);
        """)
    ada.wait_for("order 7")


def test_old_entries_are_trimmed_and_the_table_does_not_grow(dsn: str) -> None:
    log = PostgresLog(dsn, size=100, name="Order")  # a reserved word
    seen = Delivered(log)
    log._store._deleted = 20_000 - 150  # type: ignore[attr-defined]
    for n in range(500):
        log.append(packet(str(n)))
    until(lambda: len(entries(dsn, "order")) <= 110)
    assert entries(dsn, "order")[-100:] == [str(n) for n in range(400, 500)]
    until(lambda: rows(dsn, "SELECT pg_stat_get_vacuum_count('order_entries'::regclass) > 0") == [(True,)])
    assert len(seen) == 500 and not log.failing
    log.close()


def test_the_newest_entry_stays_however_old_so_that_offsets_go_on(dsn: str) -> None:
    log = PostgresLog(dsn, size=10, ttl=0.001)
    seen = Delivered(log)
    for n in range(30):
        log.append(packet(str(n)))
    until(lambda: len(entries(dsn)) < 12)
    log.append(packet("last"))
    assert log.end().offset == 31 and seen.breaks == 0  # type: ignore[union-attr]
    log.close()


# Within transactions


def test_a_message_is_seen_after_the_commit_and_never_after_a_rollback(dsn: str, make_hub: MakeHub) -> None:
    hub = make_hub(PostgresLog(dsn))
    ada = Follower(hub)
    with psycopg.connect(dsn) as connection:
        hub.broadcast("rolled back", within=connection)
        connection.rollback()
        receipt = hub.broadcast("kept", within=connection)
        with contextlib.suppress(ZeroDivisionError), connection.transaction():
            hub.broadcast("rolled back to a savepoint", within=connection)
            raise ZeroDivisionError
        hub.broadcast("before the commit")
        ada.wait_for("before the commit")
        connection.commit()
        hub.broadcast("after the commit")
    ada.wait_for("before the commit", "kept", "after the commit")
    assert receipt == Receipt("", 0) and rows(dsn, "SELECT * FROM ssehub_outbox") == []


def test_the_first_message_of_a_log_can_be_part_of_a_transaction(dsn: str) -> None:
    with psycopg.connect(dsn) as connection, contextlib.closing(Hub(PostgresLog(dsn))) as hub:
        hub.broadcast("rolled back", within=connection)
        connection.rollback()
        hub.broadcast("committed", within=connection)
        connection.commit()
        until(lambda: [message.data for message in hub.history().messages] == ["committed"])
        with pytest.raises(LogError, match="not accepted"):
            Hub(PostgresLog("postgresql://nobody:wrong@127.0.0.1:1/x", timeout=0.2)).broadcast("x", within=connection)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_connection_of_every_kind_can_take_the_message_along(dsn: str, make_hub: MakeHub) -> None:
    import sqlalchemy
    from sqlalchemy.orm import Session

    hub = make_hub(PostgresLog(dsn))
    ada = Follower(hub)
    expected = []
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        hub.broadcast("psycopg's cursor", within=cursor)
        hub.broadcast("psycopg's connection", within=connection)
    expected += ["psycopg's cursor", "psycopg's connection"]
    engine = sqlalchemy.create_engine(dsn.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as one:
        hub.broadcast("SQLAlchemy's connection 100% ?", within=one)
    with Session(engine) as session, session.begin():
        hub.broadcast("SQLAlchemy's session", within=session)
    expected += ["SQLAlchemy's connection 100% ?", "SQLAlchemy's session"]
    engine.dispose()
    with contextlib.suppress(ImportError):
        import psycopg2  # type: ignore[import-untyped]

        connection = psycopg2.connect(dsn)
        with connection:
            hub.broadcast("psycopg2", within=connection)
        connection.close()
        expected.append("psycopg2")
    ada.wait_for(*expected)


def test_djangos_connection_can_take_the_message_along(dsn: str) -> None:
    code = """
import sys
from urllib.parse import urlsplit
import django
from django.conf import settings
parts = urlsplit(sys.argv[1])
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:],
    "USER": parts.username, "HOST": parts.hostname, "PORT": parts.port}})
django.setup()
from django.db import connection, transaction
from ssehub import Hub
hub = Hub(sys.argv[1])
stream = hub.stream()
next(stream)
try:
    with transaction.atomic():
        hub.broadcast("rolled back", within=connection)
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
with transaction.atomic():
    hub.broadcast("kept", within=connection)
print(next(stream).decode().split("data: ")[1].strip())
stream.close()
hub.close()
connection.close()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, dsn],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("kept\n", "")


def test_what_cannot_take_a_message_along_is_refused(dsn: str) -> None:
    import sqlite3

    hub = Hub(PostgresLog(dsn))
    hub.broadcast("x")
    with contextlib.closing(sqlite3.connect(":memory:")) as wrong, pytest.raises(TypeError, match="postgresql"):
        hub.broadcast("x", within=wrong)

    class Asynchronous(psycopg.AsyncConnection[Any]):
        def __init__(self) -> None:
            """Connect to nothing."""

    with pytest.raises(TypeError, match="async"):
        hub.broadcast("x", within=Asynchronous())
    other = psycopg.connect(dsn.replace(dsn.rpartition("/")[2], "postgres"))
    with other, pytest.raises(LogError, match="ssehub_outbox"):
        hub.broadcast("x", within=other)
    hub.close()


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_callers_at_every_isolation_level_send_in_the_order_of_their_commits(
    dsn: str, level: psycopg.IsolationLevel
) -> None:
    log = PostgresLog(dsn)
    seen = Delivered(log)
    with psycopg.connect(dsn) as first, psycopg.connect(dsn) as second:
        for one in (first, second):
            one.isolation_level = level
            one.execute("SELECT count(*) FROM ssehub_entries")  # takes the snapshot
        log.append_within(packet("of the first"), first)
        log.append_within(packet("of the second"), second)
        log.append(packet("of nobody"))
        second.commit()
        first.commit()
    until(lambda: seen == ["of nobody", "of the second", "of the first"])
    log.close()


def test_a_database_whose_transactions_are_serializable_by_default_works(
    postgres_server: PostgresServer, dsn: str
) -> None:
    name = dsn.rpartition("/")[2]
    postgres_server.run(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'serializable'")
    logs = [PostgresLog(dsn) for _ in range(3)]
    seen = Delivered(logs[0])

    def send(log: PostgresLog, k: int) -> None:
        for n in range(50):
            if n % 2:
                log.append(packet(f"{k} {n}"))
            else:
                with psycopg.connect(dsn) as connection:
                    log.append_within(packet(f"{k} {n}"), connection)

    run_all([lambda k=k, log=log: send(log, k) for k, log in enumerate(logs)])
    until(lambda: len(seen) == 150, f"all, but there are {len(seen)}")
    for k in range(3):
        assert [one for one in seen if one.startswith(f"{k} ")] == [f"{k} {n}" for n in range(50)]
    assert entries(dsn) == seen
    for log in logs:
        log.close()


def run_all(calls: list[Callable[[], object]]) -> None:
    """Call functions in threads, and raise what one of them raises."""
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_a_transaction_that_stays_open_delays_nobody(dsn: str) -> None:
    log, other = PostgresLog(dsn), PostgresLog(dsn)
    seen = Delivered(log)
    with psycopg.connect(dsn) as long:
        log.append_within(packet("long"), long)
        for n in range(20):
            other.append(packet(f"append {n}"))
            with psycopg.connect(dsn) as short:
                other.append_within(packet(f"within {n}"), short)
        until(lambda: len(seen) == 40)
        assert sorted(seen) == sorted(f"{how} {n}" for how in ("append", "within") for n in range(20))
        long.commit()
    until(lambda: seen[40:] == ["long"])
    for one in (log, other):
        one.close()


#: Sends messages in transactions of random length, a third of which are rolled back. Prints what was committed, with
#: the times before and after the commit.
SENDER = """
import random, sys, time
import psycopg
from ssehub import Message, Packet, PostgresLog
seed = sys.argv[2]
choice, log = random.Random(seed), PostgresLog(sys.argv[1])
connection = psycopg.connect(sys.argv[1])
for n in range(60):
    texts = [f"{seed} {n} {k}" for k in range(choice.randint(1, 4))]
    for text in texts:
        log.append_within(Packet(Message(text), broadcast=True), connection)
        time.sleep(choice.choice((0, 0.001, 0.01)))
    if choice.random() < 1 / 3:
        connection.rollback()
    else:
        before = time.monotonic()
        connection.commit()
        print(before, time.monotonic(), *texts, sep="|", flush=True)
connection.close()
log.close()
"""


def test_four_processes_send_within_transactions_and_two_follow_in_the_order_of_the_commits(dsn: str) -> None:
    logs = [PostgresLog(dsn) for _ in range(2)]
    followers = [Delivered(log) for log in logs]
    senders = [
        subprocess.Popen([sys.executable, "-c", SENDER, dsn, str(k)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for k in range(4)
    ]
    commits: list[tuple[float, float, list[str]]] = []
    for sender in senders:
        output, _ = sender.communicate(timeout=120)
        assert sender.returncode == 0
        for line in output.splitlines():
            before, after, *texts = line.split("|")
            commits.append((float(before), float(after), texts))
    committed = [text for _, _, texts in commits for text in texts]
    for seen in followers:
        until(lambda seen=seen: len(seen) >= len(committed), f"{len(committed)} but got {len(seen)}")
        assert sorted(seen) == sorted(committed) and seen.breaks == 0
    assert followers[0] == followers[1] == entries(dsn)
    places = {text: n for n, text in enumerate(followers[0])}
    for _, _, texts in commits:
        assert [places[text] for text in texts] == sorted(places[text] for text in texts)
    for _, ended, first in commits:
        for began, _, second in commits:
            if began > ended:
                assert places[first[-1]] < places[second[0]]
    for log in logs:
        log.close()


# Tables and rights


def test_eight_processes_create_the_tables_at_once(dsn: str) -> None:
    code = """
import sys
from ssehub import Message, Packet, PostgresLog
log = PostgresLog(sys.argv[1], schema="new")
sys.stdin.readline()
log.append(Packet(Message("x"), broadcast=True))
log.close()
"""
    command = [sys.executable, "-c", code, dsn]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) for _ in range(8)]
    for one in processes:
        assert one.stdin
        one.stdin.write(b"go\n")
        one.stdin.flush()
    assert [one.communicate(timeout=60)[1] for one in processes] == [b""] * 8
    assert entries(dsn, "new.ssehub") == ["x"] * 8


def test_another_user_cannot_use_the_function_of_the_outbox_for_a_trigger(dsn: str) -> None:
    log = PostgresLog(dsn)
    log.migrate()
    log.close()
    with psycopg.connect(dsn) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege, match="committing"):
        connection.execute("CREATE ROLE eve; GRANT CREATE ON SCHEMA public TO eve; SET ROLE eve")
        connection.execute("CREATE TABLE mine (id bigint)")
        connection.execute("CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION ssehub_committing()")


def test_without_the_right_to_create_tables_the_error_names_the_command_which_then_suffices(
    postgres_server: PostgresServer,
    dsn: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    make_hub: MakeHub,
) -> None:
    role = f"role_{secrets.token_hex(4)}"
    rows(dsn, f'CREATE ROLE "{role}" LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC')
    limited = postgres_server.dsn(role, dsn.rpartition("/")[2])
    log = PostgresLog(limited)
    with pytest.raises(LogError, match=r"permission denied for schema public\. Run `ssehub migrate --log URL`"):
        log.append(packet("x"))
    assert main(["migrate", "--log", limited, "--print", "--role", role]) == 0
    printed = capsys.readouterr().out
    rows(dsn, printed)
    seen = Delivered(log)
    log.append(packet("a"))
    with psycopg.connect(limited) as connection:
        log.append_within(packet("b"), connection)
    rows(limited, "SELECT ssehub_send(data => 'c')")
    until(lambda: seen == ["a", "b", "c"])
    hub, asking = make_hub(PostgresLog(limited)), make_hub(PostgresLog(limited))
    Follower(hub, client_id="ada")
    assert asking.is_present("ada")
    log.close()
    monkeypatch.setenv("SSEHUB_LOG", dsn)
    for command in (["migrate", "--schema", "other", "--name", "two", "--role", role], ["migrate", "--role", role]):
        assert main(command) == 0
    assert capsys.readouterr().out == "the tables of the log are there\n" * 2
    other = PostgresLog(limited, schema="other", name="two")
    other.append(packet("x"))
    other.close()


def test_migrate_makes_the_tables_of_a_file_and_has_nothing_to_do_for_redis(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import sqlite3

    assert main(["migrate", "--log", f"sqlite:{tmp_path}/a.db"]) == 0
    assert main(["migrate", "--log", "redis://127.0.0.1:1/0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "the tables of the log are there",
        "nothing has to be done: this log has no tables",
    ]
    assert main(["migrate", "--log", f"sqlite:{tmp_path}/b.db", "--print"]) == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as connection:
        connection.executescript(capsys.readouterr().out)
    for name in "ab":
        hub = Hub(f"sqlite:{tmp_path}/{name}.db")
        assert hub.broadcast("x").id.split(".")[1] == "1"
        hub.close()
    assert main(["migrate"]) == 1 and main(["migrate", "--log", "sqlite:x.db", "--schema", "s"]) == 1


def test_tables_of_another_version_are_refused(dsn: str) -> None:
    log = PostgresLog(dsn)
    log.append(packet("x"))
    rows(dsn, "UPDATE ssehub_head SET version = 99")
    other = PostgresLog(dsn)
    with pytest.raises(LogError, match="another version"):
        other.append(packet("y"))
    for one in (log, other):
        one.close()


@pytest.mark.parametrize("address", ["postgresql://ada:secret%zz@/x", "host=a password='secret", "x y=secret"])
def test_no_error_text_has_a_part_of_the_password(address: str) -> None:
    with pytest.raises(ValueError, match="not the address") as caught:
        PostgresLog(address)
    assert "secret" not in str(caught.value) and caught.value.__cause__ is None and caught.value.__suppress_context__


def test_what_will_not_work_later_is_an_error_at_once(
    postgres_server: PostgresServer, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    for wrong in (
        dsn + "_not", postgres_server.dsn("nobody:secret", dsn.rpartition("/")[2])
    ):  # fmt: skip
        log = PostgresLog(wrong, timeout=3600)
        with pytest.raises(LogError, match="does not exist") as caught:
            log.append(packet("x"))
        log.close()
        assert "secret" not in str(caught.value) + caplog.text
    log = PostgresLog(dsn, timeout=3600)
    log.append(packet("x"))
    rows(dsn, "ALTER TABLE ssehub_entries ADD CHECK (number < 2)")
    with pytest.raises(LogError, match=r"the message was not accepted: .*check constraint"):
        log.append(packet("y"))
    log.close()


# Faults


def test_in_a_storm_each_accepted_message_is_delivered_exactly_once(server: PostgresServer) -> None:
    logs = [PostgresLog(server.dsn(), size=100_000, timeout=3.0) for _ in range(3)]
    followers = [Delivered(log) for log in logs[:2]]
    accepted: list[str] = []
    refused: list[str] = []
    stop = threading.Event()

    def send(k: int) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            try:
                logs[k % 3].append(packet(f"{k} {n}"))
                accepted.append(f"{k} {n}")
            except LogError:
                refused.append(f"{k} {n}")

    senders = [threading.Thread(target=send, args=(k,)) for k in range(6)]
    for thread in senders:
        thread.start()
    try:
        chance = random.Random(3)
        for fault in ("end", "kill", "end", "pause", "restart", "end", "pause long", "kill"):
            sent = len(accepted)
            until(lambda sent=sent: len(accepted) > sent + 50, "messages between two faults", 6 * GUARD)
            if fault == "end":
                server.end_backends("random() < 0.7")
            elif fault == "restart":
                server.restart()
            elif fault == "kill":
                server.kill()
                server.start()
            else:
                server.pause()
                # Shorter or longer than an attempt, which may take half of the timeout.
                time.sleep(2.0 if "long" in fault else chance.uniform(0.1, 0.5))
                server.go_on()
    finally:
        stop.set()
        for thread in senders:
            thread.join()
    logs[2].append(packet("last"))
    for seen in followers:
        until(lambda seen=seen: seen and seen[-1] == "last", "the last message", 3 * GUARD)
    held = entries(server.dsn())
    assert len(set(held)) == len(held), "a message was written twice"
    assert set(accepted) <= set(held) <= {*accepted, *refused, "last"}
    for seen in followers:
        assert seen == held and seen.breaks == 0
    for k in range(6):
        mine = [int(text.split()[1]) for text in held if text.startswith(f"{k} ")]
        assert mine == sorted(mine)
    until(lambda: not any(log.failing for log in logs), "all to work again", 3 * GUARD)
    for log in logs:
        log.close()


def test_a_message_whose_attempt_had_no_answer_is_written_once(server: PostgresServer) -> None:
    log = PostgresLog(server.dsn(), timeout=2 * GUARD)
    log.append(packet("before"))
    with psycopg.connect(server.dsn(), autocommit=False) as blocking:
        # The lock of the appends: the first attempt is still on the server when the next one comes.
        blocking.execute("SELECT pg_advisory_xact_lock(1936942440, 'ssehub_head'::regclass::oid::integer)")
        sending = threading.Thread(target=log.append, args=(packet("once"),))
        sending.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"
        until(lambda: server.run(waiting) == [(1,)])
        log._store._shared._connection.interrupt()  # type: ignore[attr-defined]  # as if the network had gone
        until(lambda: server.run(waiting) == [(2,)])
        blocking.rollback()
    sending.join()
    until(lambda: server.run(waiting) == [(0,)])
    assert entries(server.dsn()) == ["before", "once"]
    log.close()


def test_if_entries_were_dropped_between_two_attempts_the_sender_is_told_that_the_outcome_is_unknown(
    server: PostgresServer,
) -> None:
    log, other = PostgresLog(server.dsn(), timeout=2 * GUARD), PostgresLog(server.dsn(), size=1)
    log.append(packet("before"))
    errors: list[LogError] = []

    def attempt() -> None:
        try:
            log.append(packet("unknown"))
        except LogError as error:
            errors.append(error)

    with psycopg.connect(server.dsn(), autocommit=False) as blocking:
        blocking.execute("SELECT pg_advisory_xact_lock(1936942440, 'ssehub_head'::regclass::oid::integer)")
        sending = threading.Thread(target=attempt)
        sending.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"
        until(lambda: server.run(waiting) == [(1,)])
        blocking.execute(
            "INSERT INTO ssehub_entries SELECT n, lpad(to_hex(n - 1), 8, '0'), lpad(to_hex(n), 8, '0'), NULL, NULL, 0,"
            " NULL, 'data: x\n\n' FROM generate_series(2, 9) n; DELETE FROM ssehub_entries WHERE number < 5"
        )
        server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'advisory'")
        blocking.commit()
    sending.join()
    assert [str(error)[:48] for error in errors] == ["it is not known whether the message was accepted"]
    assert log.append(packet("after")).id and entries(server.dsn())[-1] == "after"
    for one in (log, other):
        one.close()


def test_a_sender_that_was_silent_for_long_is_not_told_nonsense(dsn: str) -> None:
    silent, busy = PostgresLog(dsn), PostgresLog(dsn, size=5)
    silent.append(packet("first"))
    for n in range(30):
        busy.append(packet(str(n)))
    silent.append(packet("second"))
    assert entries(dsn)[-1] == "second"
    for one in (silent, busy):
        one.close()


def test_a_stopped_server_gives_an_error_and_closing_does_not_wait_for_it(server: PostgresServer) -> None:
    log, patient = PostgresLog(server.dsn(), timeout=1.0), PostgresLog(server.dsn(), timeout=3600)
    seen = Delivered(log)
    Delivered(patient)
    log.append(packet("before"))
    server.pause()
    with pytest.raises(LogError, match=r"it is not known whether the message was accepted|was not accepted"):
        log.append(packet("lost, or not"))
    threads = [threading.Thread(target=patient.close, args=(0.5,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GUARD)
        assert not thread.is_alive()
    server.go_on()
    log.append(packet("after"))
    until(lambda: seen[0] == "before" and seen[-1] == "after")
    log.close()


def test_a_follower_whose_connection_is_ended_goes_on(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    log, other = PostgresLog(dsn), PostgresLog(dsn)
    seen = Delivered(log)
    for n in range(3):
        other.append(packet(str(n)))
        until(lambda n=n: len(seen) == n + 1)
        rows(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                  " WHERE application_name = 'ssehub' AND datname = current_database()")  # fmt: skip
    other.append(packet("3"))
    until(lambda: seen == ["0", "1", "2", "3"])
    until(lambda: not log.failing and "cannot be followed" in caplog.text and "is back" in caplog.text)
    for one in (log, other):
        one.close()


@pytest.mark.parametrize("grown", [False, True])
def test_after_an_older_dump_was_restored_clients_get_a_gap(dsn: str, make_hub: MakeHub, grown: bool) -> None:
    hub = make_hub(PostgresLog(dsn))
    ada = Follower(hub)
    hub.broadcast("0")
    dump = subprocess.run([program("pg_dump"), "--clean", dsn], capture_output=True, text=True, check=True).stdout
    hub.broadcast("1")
    ada.wait_for("0", "1")
    psql = [program("psql"), "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", dsn]
    added = "SELECT ssehub_send(data => 'other'); SELECT ssehub_send(data => 'more');" if grown else ""
    restored = dump + "SET search_path = public;" + added
    subprocess.run(psql, input=restored, check=True, text=True, stdout=subprocess.DEVNULL)
    until(lambda: ada.texts[2:3] == ["gap fork None" if grown else "gap ahead None"])
    hub.broadcast("after")
    until(lambda: ada.texts[-1] == "after")
    assert ada.texts[:2] == ["0", "1"] and len(set(ada.texts)) == len(ada.texts)


def test_a_dropped_log_begins_anew(dsn: str, make_hub: MakeHub) -> None:
    hub = make_hub(PostgresLog(dsn))
    ada = Follower(hub)
    hub.broadcast("0")
    ada.wait_for("0")
    rows(dsn, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    with contextlib.suppress(LogError):
        hub.broadcast("lost, or not")
    until(lambda: "gap epoch None" in ada.texts)
    hub.broadcast("after")
    until(lambda: ada.texts[-1] == "after")


# Standbys and poolers


@pytest.fixture
def pair(server: PostgresServer) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """Give a primary and its standby."""
    standby = PostgresServer(server)
    yield server, standby
    standby.close()


def caught_up(primary: PostgresServer, standby: PostgresServer) -> bool:
    """Return whether a standby has all that the primary has."""
    (end,) = primary.run("SELECT pg_current_wal_lsn()")[0]
    return standby.run(f"SELECT pg_last_wal_replay_lsn() >= '{end}'") == [(True,)]


def test_after_a_failover_to_the_standby_all_goes_on(pair: tuple[PostgresServer, PostgresServer]) -> None:
    primary, standby = pair
    both = f"host=127.0.0.1,127.0.0.1 port={standby.port},{primary.port} user=ssehub dbname=postgres"
    logs = [PostgresLog(both, timeout=3 * GUARD) for _ in range(2)]
    seen = Delivered(logs[0])
    logs[1].append(packet("before"))
    until(lambda: caught_up(primary, standby) and seen == ["before"])
    primary.kill()
    sending = threading.Thread(target=logs[1].append, args=(packet("meanwhile"),))
    sending.start()
    standby.promote()
    sending.join()
    logs[0].append(packet("after"))
    until(lambda: seen == ["before", "meanwhile", "after"])
    assert seen.breaks == 0
    for log in logs:
        log.close()


def test_a_standby_can_be_followed_and_refuses_messages(
    pair: tuple[PostgresServer, PostgresServer], caplog: pytest.LogCaptureFixture
) -> None:
    primary, standby = pair
    writing, reading = PostgresLog(primary.dsn()), PostgresLog(standby.dsn(), size=20, timeout=1.0)
    writing.append(packet("0"))
    until(lambda: caught_up(primary, standby))
    seen = Delivered(reading)
    for n in range(1, 50):
        writing.append(packet(str(n)))
    until(lambda: seen == [str(n) for n in range(1, 50)])
    with pytest.raises(LogError, match=r"the message was not accepted: .*read-only"):
        reading.append(packet("x"))
    assert caplog.text.count("does not deliver notifications") == 1 and "a standby sends none" in caplog.text
    assert not reading.failing
    for log in (writing, reading):
        log.close()


class Pooler:
    """A proxy that passes on all but notifications, as poolers that give a connection to several clients."""

    def __init__(self, server: PostgresServer) -> None:
        self._to = server.port
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += [client, server]
                for run, *ends in ((self._pass, client, server), (self._filter, server, client)):
                    self._threads.append(threading.Thread(target=run, args=ends))
                    self._threads[-1].start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        self._end(target)

    def _filter(self, source: socket.socket, target: socket.socket) -> None:
        # The answer to a request for encryption is one byte.
        with contextlib.suppress(OSError, struct.error), source.makefile("rb") as stream:
            while kind := stream.read(1):
                if kind == b"N" and stream.peek(1)[:1] != b"\0":  # type: ignore[attr-defined]
                    target.sendall(kind)
                    continue
                size = stream.read(4)
                body = stream.read(struct.unpack("!i", size)[0] - 4)
                if kind != b"A":
                    target.sendall(kind + size + body)
        self._end(target)

    @staticmethod
    def _end(one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End all connections."""
        for one in self._sockets:
            self._end(one)
        for thread in self._threads:
            thread.join(GUARD)
        for one in self._sockets:
            one.close()


@pytest.fixture
def pooler(postgres_server: PostgresServer) -> Iterator[Pooler]:
    """Give a proxy for the shared server that loses notifications."""
    one = Pooler(postgres_server)
    yield one
    one.close()


def test_behind_a_pooler_that_delivers_no_notifications_messages_still_come(
    postgres_server: PostgresServer, dsn: str, pooler: Pooler, caplog: pytest.LogCaptureFixture
) -> None:
    pooled = dsn.replace(f":{postgres_server.port}", f":{pooler.port}") + "?sslmode=disable"
    caplog.set_level(logging.INFO, "ssehub")
    log, other, both = PostgresLog(pooled), PostgresLog(dsn), PostgresLog(pooled, listen_dsn=dsn)
    seen, seen_by_both = Delivered(log), Delivered(both)
    other.append(packet("0"))
    with psycopg.connect(dsn) as connection:
        other.append_within(packet("1"), connection)
    until(lambda: seen == seen_by_both == ["0", "1"])
    until(lambda: log._store._listener.delivers is False)  # type: ignore[attr-defined]
    until(lambda: both._store._listener.delivers is True)  # type: ignore[attr-defined]
    assert caplog.text.count("does not deliver notifications on 'ssehub' (perhaps there is a pooler") == 1
    other.append(packet("2"))
    until(lambda: seen == seen_by_both == ["0", "1", "2"])
    for one in (log, other, both):
        one.close()


# Processes


def run_code(code: str, *arguments: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    return done.stdout, done.stderr


def test_after_a_fork_parent_and_child_have_connections_of_their_own(dsn: str) -> None:
    code = """
import gc, os, sys, time
from ssehub import Hub, PostgresLog
hub = Hub(PostgresLog(sys.argv[1]))
mine = hub.stream()
next(mine)
hub.broadcast("parent")
next(mine)
before = hub._log._store._shared.pid, hub._log._store._followed.pid
child = os.fork()
if not child:
    stream = hub.stream()
    next(stream)
    gc.collect()
    hub.broadcast("child")
    print(b"child" in next(stream), hub._log._store._shared.pid not in before)
    stream.close()
    hub.close()
    sys.exit()
os.waitpid(child, 0)
print(b"child" in next(mine))
hub.broadcast("parent again")
print(b"parent again" in next(mine), (hub._log._store._shared.pid, hub._log._store._followed.pid) == before)
mine.close()
hub.close()
"""
    assert run_code(code, dsn) == ("True True\nTrue\nTrue True\n", "")


def test_a_forked_child_does_not_keep_the_sessions_of_a_parent_that_was_killed(dsn: str) -> None:
    code = """
import os, signal, sys, time
from ssehub import Hub, PostgresLog
hub = Hub(PostgresLog(sys.argv[1]))
mine = hub.stream()
next(mine)
hub.broadcast("x")  # both connections are open
child = os.fork()
if child:
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""
    sessions = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'ssehub'"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, dsn], stdout=subprocess.PIPE, cwd=ROOT
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        try:
            until(lambda: rows(dsn, sessions) == [(0,)])
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("patched", ["before", "after"])
def test_under_gevent_other_greenlets_run_while_the_server_is_waited_for(dsn: str, patched: str) -> None:
    code = """
import sys
if sys.argv[2] == "before":
    from gevent import monkey; monkey.patch_all()
from ssehub import Hub, PostgresLog
log = PostgresLog(sys.argv[1])
if sys.argv[2] == "after":
    from gevent import monkey; monkey.patch_all()
import gevent, psycopg
hub = Hub(log)
stream = hub.stream()
next(stream)
counted = 0
def count():
    global counted
    while True:
        counted += 1
        gevent.sleep(0.001)
counting = gevent.spawn(count)
sending = gevent.spawn(lambda: log._store.query("SELECT pg_sleep(0.5)"))
sending.join()
print(counted > 50)
hub.broadcast("x")
print(b"data: x" in next(stream))
with psycopg.connect(sys.argv[1]) as connection:
    hub.broadcast("y", within=connection)
print(b"data: y" in next(stream))
stream.close()
hub.close()
"""
    assert run_code(code, dsn, patched) == ("True\nTrue\nTrue\n", "")
