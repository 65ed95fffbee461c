"""What other programs write into the file of a SQLiteLog, and messages within transactions of the application."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssehub import ALL, Hub, LogError, Message, Receipt, SQLiteLog
from tests.followers import Follower
from tests.servers import output
from tests.streams import GUARD, until

MakeHub = Callable[..., Hub]


# Sending with SQL


@pytest.mark.parametrize(
    ("data", "event"),
    [("x", None), ("two\nlines", "note"), ("a\r\nb\rc\n", None), ("", "empty"), (" blank", None), ("ä 🐍", "ä"),
     (5, None), (1.5, "number"), ("x" * 100_000, None), ("data: x\n\nid: 7", None),
     ("x", "message"), ("x", "")],
)  # fmt: skip
def test_any_program_can_send_with_an_insert(
    make: MakeHub, shell: sqlite3.Connection, data: Any, event: str | None
) -> None:
    hub = make()
    follower = Follower(hub)
    shell.execute("INSERT INTO ssehub_send (event, data) VALUES (?, ?)", (event, data))
    until(lambda: follower.texts)
    expected = Message.decode(Message(str(data), event or "message").encode())
    assert (follower.events[-1].data, follower.events[-1].event) == (expected.data, expected.event)
    assert follower.events[-1].id == str(hub._log.end()) and hub.stats()["unreadable"] == 0


def test_what_a_program_sends_is_addressed_and_part_of_its_transaction(
    make: MakeHub, shell: sqlite3.Connection
) -> None:
    hub = make()
    ada, bob = Follower(hub, client_id="ada", zone="a"), Follower(hub, client_id="bob", zone="b")
    shell.execute("BEGIN")
    shell.execute("INSERT INTO ssehub_send (data) VALUES ('rolled back')")
    shell.execute("ROLLBACK")
    shell.execute("BEGIN")
    shell.execute("INSERT INTO ssehub_send (data, zone) VALUES ('to a', 'a'), ('to b', 'b')")
    shell.execute("INSERT INTO ssehub_send (data, client_id) VALUES ('to bob', 'bob')")
    shell.execute("COMMIT")
    hub.broadcast("end")
    ada.wait_for("to a", "end")
    bob.wait_for("to b", "to bob", "end")


@pytest.mark.parametrize(
    "values",
    [{"data": None}, {"event": "a\nb"}, {"event": "\r"}, {"event": "ssehub.gap"}, {"zone": ""}, {"zone": "x" * 256},
     {"client_id": "a\nb"}, {"zone": "\x7f"}, {"client_id": "\x9f"}, {"zone": "\x01"}, {"client_id": ""}],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_by_the_insert(
    make: MakeHub, shell: sqlite3.Connection, values: dict[str, str | None]
) -> None:
    columns = {"data": "x", **values}
    with pytest.raises(sqlite3.IntegrityError):
        shell.execute(
            f"INSERT INTO ssehub_send ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            tuple(columns.values()),
        )
    hub = make()
    Follower(hub, since="oldest").wait_for("first")
    assert hub.stats()["unreadable"] == 0


@pytest.mark.parametrize("name", ["a-b", "a b", "ä", "a]b", "x" * 255])
def test_other_names_can_be_used(make: MakeHub, shell: sqlite3.Connection, name: str) -> None:
    follower = Follower(make(), zone=name, client_id=name)
    shell.execute("INSERT INTO ssehub_send (data, zone, client_id) VALUES ('x', ?, ?)", (name, name))
    follower.wait_for("x")


# What nobody should write

NONSENSE = [5, -1.5, "", "nonsense", "é\0\n", b"\xff\x00", "9" * 400, 1e300, float("inf"), "[" * 10_000, '{"o": 5}']


@pytest.mark.parametrize("column", ["previous", "nonce", "zone", "client_id", "sent", "extra", "body"])
def test_nonsense_in_an_entry_is_skipped_or_a_gap_and_what_follows_arrives(
    make: MakeHub, shell: sqlite3.Connection, column: str
) -> None:
    hub, sender = make(ttl=3600.0), make()
    follower = Follower(hub, zone="a", client_id="ada")
    for n, nonsense in enumerate(NONSENSE):
        with contextlib.suppress(sqlite3.IntegrityError, sqlite3.OperationalError):
            shell.execute(
                f"INSERT INTO ssehub_entries (number, {column}, "
                + ", ".join(one for one in ("previous", "nonce", "sent", "body") if one != column)
                + ") SELECT number + 1, ?, "
                + ", ".join(
                    sql
                    for one, sql in (
                        ("previous", "nonce"),
                        ("nonce", "'0123abcd'"),
                        ("sent", "1e9"),
                        ("body", "'data: s\n\n'"),
                    )
                    if one != column
                )
                + " FROM ssehub_head",
                (nonsense,),
            )
        # A gap may include the first messages.
        until(lambda n=n: _arrives(sender, follower, f"after {n}"), f"after {nonsense!r}")
    assert hub.stats()["failing"] == {} and b"\0" not in b"".join(follower.chunks)
    again = make(ttl=3600.0, zone_size=5)
    Follower(again, since="oldest").wait_for_last(f"after {len(NONSENSE) - 1}")
    for event in follower.events:
        assert event.id is None or "\n" not in event.id


@pytest.mark.parametrize("column", ["epoch", "number", "nonce"])
def test_the_head_refuses_nonsense(make: MakeHub, shell: sqlite3.Connection, column: str) -> None:
    for nonsense in (-5, -1.5, "", "nonsense", b"\xff\x00", "9" * 400, 1e300, None):
        with pytest.raises(sqlite3.IntegrityError):
            shell.execute(f"UPDATE ssehub_head SET {column} = ?", (nonsense,))
    with pytest.raises(sqlite3.IntegrityError):
        shell.execute("INSERT INTO ssehub_head VALUES (2, 1, 1, 1, '00000000')")


@pytest.mark.parametrize("statement", [
    "UPDATE ssehub_head SET number = number - 2, nonce = '0123abcd'",
    "UPDATE ssehub_head SET number = number + 1000",
    "UPDATE ssehub_head SET nonce = '0123abcd'",
    "UPDATE ssehub_head SET epoch = 5",
    "DELETE FROM ssehub_head",
    "DELETE FROM ssehub_entries",
    "DELETE FROM ssehub_entries WHERE number = (SELECT number FROM ssehub_head)",
    "DELETE FROM ssehub_entries WHERE number % 2 = 0",
    "UPDATE ssehub_entries SET number = -number",
    "UPDATE ssehub_entries SET nonce = 'x', previous = 'y'",
    "INSERT INTO ssehub_entries VALUES (900000000000000000, 'x', '0123abcd', NULL, NULL, 1, NULL, 'data: x\n\n', NULL)",
    "DROP TABLE ssehub_entries",
    "DROP TABLE ssehub_head",
    "DROP VIEW ssehub_send",
    "DROP TRIGGER ssehub_move",
    "DROP TABLE ssehub_sessions",
])  # fmt: skip
def test_whatever_is_done_by_hand_the_log_goes_on(make: MakeHub, shell: sqlite3.Connection, statement: str) -> None:
    hub, sender = make(), make()
    follower = Follower(hub)
    for n in range(5):
        sender.broadcast(f"before {n}")
    follower.wait_for_last("before 4")
    shell.execute(statement)
    until(lambda: _arrives(sender, follower, "after"))  # a gap may include the first messages
    assert follower.texts[5] == "after" or follower.texts[5].startswith("gap"), "lost silently"
    hub.broadcast("again")
    follower.wait_for_last("again")
    Follower(hub, client_id="ada")
    until(lambda: _sees(sender, "ada"))
    until(lambda: hub.stats()["failing"] == {})
    late = Follower(make(), last_event_id=follower.events[1].id)
    until(lambda: late.texts and (late.texts[-1] == "again" or late.texts[-1].startswith("gap")))


def _arrives(sender: Hub, follower: Follower, text: str) -> bool:
    with contextlib.suppress(LogError):
        sender.broadcast(text)
    return bool(follower.texts) and follower.texts[-1] == text


def _sees(hub: Hub, client_id: str) -> bool:
    try:
        return hub.is_present(client_id)
    except LogError:
        return False


@pytest.mark.parametrize(
    ("table", "column"),
    [("processes", "itself"), ("processes", "expires"), ("clients", "metadata"), ("clients", "client_id"),
     ("sessions", "session_id"), ("sessions", "client_id"), ("sessions", "zones"), ("sessions", "connected_at"),
     ("zones", "zone"), ("zones", "connections")],
)  # fmt: skip
def test_nonsense_about_a_process_harms_nobody(
    make: MakeHub, shell: sqlite3.Connection, table: str, column: str
) -> None:
    asking, other = make(), make()
    Follower(other, client_id="eve", zone="e", metadata={"a": 1})
    until(lambda: asking.is_present("eve"))
    for nonsense in NONSENSE:
        with contextlib.suppress(sqlite3.IntegrityError):
            shell.execute(f"UPDATE ssehub_{table} SET {column} = ?", (nonsense,))
        asking.connections(everywhere=True)
        asking.processes()
        asking.zones()
        asking.is_present("eve")
        with contextlib.suppress(LookupError):
            asking.get_metadata("eve")
    shell.execute("DELETE FROM ssehub_processes")  # so all is written again
    bob = Follower(other, client_id="bob")
    until(lambda: asking.is_present("bob") and asking.is_present("eve", "e"), guard=2 * GUARD)
    asking.disconnect("bob")
    bob.join()


# Bounds


def test_a_busy_zone_does_not_push_out_a_quiet_one_also_after_a_restart(path: Path, make: MakeHub) -> None:
    options = {"size": 100, "zone_size": 10}
    hub, sender = make(**options), make(**options)
    first = Follower(hub, zone="quiet")
    start = sender.broadcast("start").id
    for n in range(30):
        sender.broadcast(f"quiet {n}", zone="quiet")
        for k in range(60):
            sender.broadcast(f"busy {n} {k}", zone="busy")
    first.wait_for_last("quiet 29")

    def check(one: Hub, *hello: str) -> None:
        quiet = Follower(one, zone="quiet", last_event_id=start).texts
        until(lambda: quiet)
        late = Follower(one, zone="quiet", last_event_id=start)
        late.wait_for_last("quiet 29")
        n = 0  # the number of the next message; pages that were read for the other follower may still be in memory
        for text in late.texts:
            if text == f"quiet {n}":
                n += 1
            else:
                assert text and text.startswith("gap trimmed "), late.texts
                n += int(text.rpartition(" ")[2])
        assert n == 30 and late.texts[-10:] == [f"quiet {n}" for n in range(20, 30)]
        untouched = Follower(one, zone="nobody", last_event_id=start)
        one.broadcast(hello[-1], zone="nobody")
        untouched.wait_for(*hello)

    check(hub, "hello")
    for one in (hub, sender):
        one.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM ssehub_entries WHERE body IS NOT NULL")
    assert count <= 200
    check(make(**options), "hello", "hello again")


def test_old_entries_expire_also_in_a_process_that_starts(make: MakeHub, shell: sqlite3.Connection) -> None:
    hub = make(ttl=3600.0)
    hub.broadcast("new")
    shell.execute("UPDATE ssehub_entries SET sent = sent - 3601 WHERE number = 1")
    Follower(make(ttl=3600.0), since="oldest").wait_for("new")
    for n in range(1001):
        hub.broadcast(str(n))
    until(lambda: shell.execute("SELECT min(number) FROM ssehub_entries").fetchone() == (2,))


def test_old_entries_expire_also_in_a_quiet_log_and_leave_the_file(make: MakeHub, shell: sqlite3.Connection) -> None:
    hub = make(ttl=0.2)
    Follower(hub)
    for n in range(10):
        hub.broadcast(str(n))
    until(lambda: shell.execute("SELECT number FROM ssehub_entries").fetchall() == [(11,)])


def test_two_hubs_with_different_names_share_a_file_and_no_message(path: Path, make_hub: MakeHub) -> None:
    one, two = (make_hub(SQLiteLog(path, name=name)) for name in ("one", "_Two_2"))
    here, there = Follower(one, client_id="ada"), Follower(two, client_id="bob")
    for n in range(10):
        one.broadcast(f"one {n}")
        two.broadcast(f"two {n}")
    here.wait_for(*(f"one {n}" for n in range(10)))
    there.wait_for(*(f"two {n}" for n in range(10)))
    assert not one.is_present("bob") and not two.is_present("ada")


# Within transactions


def sqlite_connection(path: Path) -> Any:
    connection = sqlite3.connect(path, timeout=10)
    return connection, connection.commit, connection.rollback, connection.close


def sqlite_cursor(path: Path) -> Any:
    connection = sqlite3.connect(path, timeout=10)
    return connection.cursor(), connection.commit, connection.rollback, connection.close


def sqlalchemy_connection(path: Path) -> Any:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    connection = engine.connect()

    def close() -> None:
        connection.close()
        engine.dispose()

    return connection, connection.commit, connection.rollback, close


def sqlalchemy_session(path: Path, scoped: bool = False) -> Any:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    session = orm.scoped_session(orm.sessionmaker(engine)) if scoped else orm.Session(engine)

    def close() -> None:
        session.close()
        engine.dispose()

    return session, session.commit, session.rollback, close


def sqlalchemy_scoped_session(path: Path) -> Any:
    return sqlalchemy_session(path, scoped=True)


KINDS = [sqlite_connection, sqlite_cursor, sqlalchemy_connection, sqlalchemy_session, sqlalchemy_scoped_session]


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_part_of_the_transaction(
    path: Path, make: MakeHub, shell: sqlite3.Connection, kind: Callable[[Path], Any]
) -> None:
    hub, sender = make(), make()
    follower = Follower(hub, client_id="ada")
    connection, commit, rollback, close = kind(path)
    try:
        assert sender.broadcast("rolled back", within=connection) == Receipt("", 0)
        rollback()
        sender.broadcast("committed", within=connection)
        sender.send("ada", Message("with an id", id="order 7"), within=connection)
        sending = threading.Thread(target=hub.broadcast, args=("later",))
        sending.start()
        commit()
        sending.join()
        follower.wait_for("committed", "with an id", "later")
    finally:
        close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_message_of_a_log_can_be_part_of_a_transaction(path: Path, kind: Callable[[Path], Any]) -> None:
    sender = Hub(SQLiteLog(path))
    for texts in ([], ["committed"]):
        connection, commit, rollback, close = kind(path)
        sender.broadcast("rolled back", within=connection)
        rollback()
        for text in texts:
            sender.broadcast(text, within=connection)
            commit()
        close()
        with contextlib.closing(Hub(SQLiteLog(path))) as hub:
            assert [message.data for message in hub.history().messages] == texts
    sender.close()


def test_the_rows_of_a_cursor_and_the_form_of_its_rows_stay(path: Path, make: MakeHub) -> None:
    hub = make()
    follower = Follower(hub)
    connection = sqlite3.connect(path)
    connection.row_factory = lambda cursor, row: {"n": row[0]}
    cursor = connection.execute("SELECT 1 UNION SELECT 2")
    hub.broadcast("x", within=cursor)
    assert cursor.fetchall() == [{"n": 1}, {"n": 2}]
    hub.broadcast("y", within=connection)
    connection.commit()
    connection.close()
    follower.wait_for("x", "y")


def test_without_a_transaction_each_message_is_sent_at_once_and_in_order(path: Path, make: MakeHub) -> None:
    hub = make()
    follower = Follower(hub)

    def send(k: int) -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
            for n in range(200):
                hub.broadcast(f"{k} {n}", within=connection)

    threads = [threading.Thread(target=send, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for n in range(200):
        hub.broadcast(f"4 {n}")
    for thread in threads:
        thread.join()
    hub.broadcast("end")
    follower.wait_for_last("end")
    for k in range(5):
        mine = [text for text in follower.texts if text and text.startswith(f"{k} ")]
        assert mine == [f"{k} {n}" for n in range(200)]
    assert len(follower.texts) == 1001


DJANGO = """
import sys, django
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}})
django.setup()
from django.db import connection, transaction
from ssehub import Hub, LogError, SQLiteLog
hub = Hub(SQLiteLog(sys.argv[1]))
try:
    with transaction.atomic():
        hub.broadcast("rolled back", within=connection)
        raise KeyError
except KeyError:
    pass
with transaction.atomic():
    hub.broadcast({"committed": "100 %"}, within=connection)
with transaction.atomic():
    connection.cursor().execute("SELECT count(*) FROM ssehub_entries").fetchall()
    hub.broadcast("by another process")
    try:
        hub.broadcast("too late", within=connection)
    except LogError as error:
        print(error)
hub.close()
"""


def test_a_message_is_part_of_a_transaction_of_django(path: Path, make: MakeHub, shell: sqlite3.Connection) -> None:
    pytest.importorskip("django")
    follower = Follower(make())
    said = output(DJANGO, path)
    follower.wait_for('{"committed":"100 %"}', "by another process")
    assert "BEGIN IMMEDIATE" in said and "transaction_mode" in said


def test_within_a_transaction_a_log_without_a_head_accepts_nothing(make: MakeHub, shell: sqlite3.Connection) -> None:
    shell.execute("DELETE FROM ssehub_head")
    with pytest.raises(LogError, match="ssehub_head is empty"):
        make().broadcast("lost", within=shell)


def test_a_transaction_that_cannot_begin_to_write_says_what_to_do(
    path: Path, make: MakeHub, shell: sqlite3.Connection
) -> None:
    hub = make()
    shell.execute("BEGIN")
    shell.execute("SELECT count(*) FROM ssehub_entries").fetchall()
    hub.broadcast("another")
    with pytest.raises(LogError, match="BEGIN IMMEDIATE"):
        hub.broadcast("too late", within=shell)
    shell.execute("ROLLBACK")
    hub.broadcast("in time", within=shell)
    Follower(hub, since="oldest").wait_for("first", "another", "in time")


def test_a_wrong_connection_is_refused(tmp_path: Path, make: MakeHub, shell: sqlite3.Connection) -> None:
    hub = make()
    for wrong in (object(), "hub.db", 5, hub, ALL):
        with pytest.raises(TypeError, match="within must be a connection to the sqlite database"):
            hub.broadcast("x", within=wrong)
    another = sqlite3.connect(tmp_path / "another.db")
    with pytest.raises(LogError, match=r"a connection to .*another\.db, but the log is in .*hub\.db"):
        hub.broadcast("x", within=another)
    with contextlib.closing(Hub(SQLiteLog(tmp_path / "another.db"))) as other:
        other.broadcast("so that it has the same tables")
        with pytest.raises(LogError, match=r"another\.db, but the log is in"):
            hub.broadcast("x", within=another)
        assert len(other.history().messages) == 1
    with contextlib.closing(sqlite3.connect(":memory:")) as memory, pytest.raises(LogError, match="a memory database"):
        hub.broadcast("x", within=memory)
    another.close()
    with pytest.raises(LogError, match="closed database"):
        hub.broadcast("x", within=another)
    hub.close()
    with pytest.raises(Exception, match="closed"):
        hub.broadcast("x", within=shell)


def test_many_transactions_of_threads_are_each_whole(path: Path, make: MakeHub, shell: sqlite3.Connection) -> None:
    hub = make()
    follower = Follower(hub)

    def send(k: int) -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
            for n in range(20):
                connection.execute("BEGIN IMMEDIATE")
                for part in range(3):
                    hub.broadcast(f"{k} {n} {part}", within=connection)
                connection.execute("ROLLBACK" if n % 3 == 0 else "COMMIT")

    threads = [threading.Thread(target=send, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hub.broadcast("end")
    follower.wait_for_last("end")
    texts = [str(text).rpartition(" ")[::2] for text in follower.texts[:-1]]
    groups = [list(group) for _, group in itertools.groupby(texts, lambda text: text[0])]
    assert len(groups) == 6 * 13 and all([part for _, part in group] == ["0", "1", "2"] for group in groups)
