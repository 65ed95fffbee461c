"""The contract of every log. Add a new log to the fixture; it has to pass all these tests."""

from __future__ import annotations

import itertools
import random
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssehub import ALL, Gap, Log, LogError, MemoryLog, Message, Packet, PostgresLog, SQLiteLog
from ssehub.log import All, Entry, Interest, Place, Position
from ssehub.log.redis import RedisLog
from tests.streams import until

MakeLog = Callable[[int], Log]


@pytest.fixture(params=["memory", "redis", "sqlite", "postgres"])
def make_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeLog]:
    logs: list[Log] = []
    name = f"{request.param}_server"
    server: Any = request.getfixturevalue(name) if request.param in ("redis", "postgres") else None

    def make(size: int) -> Log:
        if request.param == "redis":
            logs.append(RedisLog(server.url, name=secrets.token_hex(8), size=size))
        elif request.param == "postgres":
            logs.append(PostgresLog(server.dsn(), name=f"log_{secrets.token_hex(8)}", size=size))
        elif request.param == "sqlite":
            logs.append(SQLiteLog(tmp_path / f"{secrets.token_hex(8)}.db", size=size))
        else:
            logs.append(MemoryLog(size))
        return logs[-1]

    yield make
    for log in logs:
        log.close()


class Delivered(list[Entry]):
    """A list of the entries that a log delivers."""

    def take(self, entry: Entry) -> int:
        self.append(entry)
        return 7


def packet(text: str, id: str | None = None) -> Packet:
    return Packet(Message(text, id=id), broadcast=True)


def texts(entries: object) -> list[str | None]:
    return [entry.packet.message.data for entry in entries]  # type: ignore[attr-defined]


def read_all(log: Log, place: Position, limit: int = 3) -> tuple[list[str | None], list[Gap]]:
    """Read to the end, as a connection does."""
    found: list[str | None] = []
    gaps: list[Gap] = []
    while True:
        page = log.read(place, limit)
        if page.gap:
            gaps.append(page.gap)
            place = page.gap.place
            continue
        found += texts(page.entries)
        if page.entries:
            place = page.entries[-1].place
        if page.level:
            return found, gaps


def test_each_entry_is_delivered_once_in_order_and_has_a_receipt(make_log: MakeLog) -> None:
    log, seen = make_log(10), Delivered()
    log.start(seen.take, print)
    receipts = [log.append(packet(str(n))) for n in range(5)]
    assert texts(seen) == ["0", "1", "2", "3", "4"]
    assert [receipt.id for receipt in receipts] == [entry.id for entry in seen]
    assert all(receipt.queued == 7 for receipt in receipts)


def test_the_id_of_an_entry_is_its_cursor_and_locates_the_entry(make_log: MakeLog) -> None:
    log = make_log(10)
    log.start(Delivered().take, print)
    receipts = [log.append(packet(str(n))) for n in range(5)]
    place = log.locate(receipts[1].id)
    assert isinstance(place, Position)
    assert read_all(log, place) == (["2", "3", "4"], [])


def test_an_id_that_a_publisher_chose_is_kept_and_locates_the_entry(make_log: MakeLog) -> None:
    log, seen = make_log(10), Delivered()
    log.start(seen.take, print)
    log.append(packet("a", id="order 42"))
    log.append(packet("b"))
    assert seen[0].data == b"id: order 42\ndata: a\n\n"
    place = log.locate("order 42")
    assert isinstance(place, Position)
    assert read_all(log, place) == (["b"], [])


def test_an_id_that_was_chosen_twice_locates_the_newer_entry(make_log: MakeLog) -> None:
    log = make_log(10)
    log.start(Delivered().take, print)
    for text in "abc":
        log.append(packet(text, id="same" if text != "c" else None))
    place = log.locate("same")
    assert isinstance(place, Position)
    assert read_all(log, place) == (["c"], [])


@pytest.mark.parametrize(
    "last_id",
    ["nonsense", "1.2", "1.2.3", "a.-1.00000000", "A.1.00000000", "a.01.00000000", "a.1.0000000G", "a.1.00000000 ",
     "a" * 14 + ".1.00000000", "a.99999999999999999999.00000000", "\0", "٣.١.00000000", "a.1.00000000\n",
     "00.1.00000000", "x" * 100_000],
)  # fmt: skip
def test_an_unknown_id_is_a_gap_and_not_an_error(make_log: MakeLog, last_id: str) -> None:
    log = make_log(10)
    log.start(Delivered().take, print)
    log.append(packet("a"))
    assert log.locate(last_id) == Gap("bad_id", None, log.end())


def test_trimmed_entries_are_counted_and_the_held_ones_follow(make_log: MakeLog) -> None:
    log = make_log(4)
    log.start(Delivered().take, print)
    start = log.end()
    for n in range(10):
        log.append(packet(str(n)))
    found, gaps = read_all(log, start)
    assert found == ["6", "7", "8", "9"]
    assert [(gap.reason, gap.missed) for gap in gaps] == [("trimmed", 6)]
    assert log.oldest() == gaps[0].place


def test_the_id_of_a_dropped_entry_is_unknown(make_log: MakeLog) -> None:
    log = make_log(2)
    log.start(Delivered().take, print)
    for n in range(5):
        log.append(packet(str(n), id=f"own-{n}"))
    assert isinstance(log.locate("own-4"), Position)
    assert isinstance(log.locate("own-0"), Gap)


def test_after_a_newer_log_has_replaced_the_log_all_its_entries_are_new(make_log: MakeLog) -> None:
    old, new = make_log(10), make_log(10)
    for log in (old, new):
        log.start(Delivered().take, print)
    for n in range(3):
        old.append(packet(f"old {n}"))
        new.append(packet(f"new {n}"))
    found, gaps = read_all(new, old.end())
    assert found == ["new 0", "new 1", "new 2"]
    assert [(gap.reason, gap.missed) for gap in gaps] == [("epoch", None)]


def test_after_an_older_log_was_restored_no_entry_is_repeated(make_log: MakeLog) -> None:
    old, new = make_log(10), make_log(10)
    for log in (old, new):
        log.start(Delivered().take, print)
    for n in range(3):
        old.append(packet(f"old {n}"))
    assert old.read(new.end(), 10).gap == Gap("epoch", None, old.end())


def test_a_place_beyond_the_end_is_reported_as_ahead(make_log: MakeLog) -> None:
    log = make_log(10)
    log.start(Delivered().take, print)
    log.append(packet("a"))
    tail = log.end()
    page = log.read(tail._replace(offset=tail.offset + 1), 10)
    assert page.gap == Gap("ahead", None, tail)


@pytest.mark.parametrize("offset", [1, 3, 5])
def test_a_place_at_which_another_entry_was_written_is_reported_as_fork(make_log: MakeLog, offset: int) -> None:
    log = make_log(5)
    log.start(Delivered().take, print)
    for n in range(5):
        log.append(packet(str(n)))
    page = log.read(Position(log.end().epoch, offset, "ffffffff"), 10)
    assert page.gap == Gap("fork", None, log.end())


def test_a_fork_just_before_the_oldest_entry_is_noticed(make_log: MakeLog) -> None:
    log = make_log(2)
    log.start(Delivered().take, print)
    for n in range(5):
        log.append(packet(str(n)))
    assert log.read(log.oldest(), 10).gap is None
    forged = log.read(log.oldest()._replace(nonce="ffffffff"), 10)
    assert forged.gap is not None and forged.gap.reason == "fork"


def test_no_entry_is_delivered_before_start_or_accepted_after_close(make_log: MakeLog) -> None:
    log, seen = make_log(10), Delivered()
    if not log.shared:
        with pytest.raises(LogError):
            log.append(packet("early"))
    log.start(seen.take, print)
    log.append(packet("a"))
    log.close()
    log.close()
    with pytest.raises(LogError):
        log.append(packet("late"))
    log.start(seen.take, print)
    log.append(packet("b"))
    assert texts(seen) == ["a", "b"]


def test_the_end_is_never_later_than_the_last_delivered_entry(make_log: MakeLog) -> None:
    log = make_log(100_000)
    delivered = 0

    def deliver(entry: Entry) -> int:
        nonlocal delivered
        delivered = entry.position.offset
        return 0

    log.start(deliver, print)
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            log.append(packet("x"))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2000):
            tail = log.end().offset
            assert delivered >= tail
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_many_publishing_threads_make_one_order_without_holes(make_log: MakeLog) -> None:
    log, seen = make_log(10_000), Delivered()
    log.start(seen.take, print)
    threads = [
        threading.Thread(target=lambda k=k: [log.append(packet(f"{k} {n}")) for n in range(200)]) for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.position.offset for entry in seen] == list(range(1, 1601))
    assert all(after.previous == before.position.nonce for before, after in itertools.pairwise(seen))
    assert texts(log.read(log.oldest(), 1600).entries) == texts(seen)
    for k in range(8):
        assert [t for t in texts(seen) if t and t.startswith(f"{k} ")] == [f"{k} {n}" for n in range(200)]


def test_a_reader_at_random_times_gets_all_messages_or_their_number_in_a_gap(make_log: MakeLog) -> None:
    chance = random.Random(5)
    for _ in range(40):
        log = make_log(chance.randint(1, 12))
        log.start(Delivered().take, print)
        count = chance.randint(0, 30)
        places = [log.end()]
        for n in range(count):
            log.append(packet(str(n)))
            places.append(log.end())
        start = chance.randint(0, count)
        found, gaps = read_all(log, places[start], chance.randint(1, 5))
        missed = sum(gap.missed or 0 for gap in gaps)
        assert found == [str(n) for n in range(start + missed, count)]
        assert len(gaps) == (missed > 0)


ADDRESSES = [(zone, client) for zone in (ALL, "a", "b", "c") for client in (None, "x", "y")]


def addressed(text: str, zone: str | All, client_id: str | None) -> Packet:
    return Packet(Message(text), zone, client_id, client_id is None)


def is_mine(interest: Interest, packet: Packet) -> bool:
    """Return whether a packet is addressed to a reader, without the index."""
    return packet.zone in (ALL, *interest.zones) and packet.client_id in (None, interest.client_id)


def follow(log: Log, place: Place, interest: Interest, limit: int) -> tuple[list[str | None], list[Gap]]:
    """Read a reader's entries to the end, as a connection does."""
    found: list[str | None] = []
    gaps: list[Gap] = []
    known: Place | None = None
    while True:
        page = log.read(place, limit, interest, None, known)
        if page.gap:
            gaps.append(page.gap)
            place, known = page.gap.place, page.place
            continue
        found += texts(page.entries)
        place = page.place
        if page.level:
            assert place == log.end()
            return found, gaps


def test_a_reader_gets_its_own_entries_and_exact_gaps(make_log: MakeLog) -> None:
    chance = random.Random(7)
    for _ in range(40):
        size = chance.randint(1, 15)
        log = make_log(size)
        log.start(Delivered().take, print)
        start, sent = log.end(), []
        for n in range(chance.randint(0, 40)):
            zone, client = chance.choice(ADDRESSES)
            sent.append(addressed(str(n), zone, client))
            log.append(sent[-1])
        held = set(range(max(0, len(sent) - size), len(sent)))
        for zones, client in itertools.product((("a",), ("a", "b"), ("c",)), (None, "x")):
            interest = Interest(zones, client)
            mine = [n for n, one in enumerate(sent) if is_mine(interest, one)]
            missed = [n for n in mine if n not in held]
            found, gaps = follow(log, start, interest, chance.randint(1, 5))
            assert found == [str(n) for n in mine if n in held]
            assert [(gap.reason, gap.missed) for gap in gaps] == ([("trimmed", len(missed))] if missed else [])
            assert log.count(start, interest) == len(found)
            last = chance.randint(0, 5)
            assert follow(log, log.before_last(last, interest), interest, 3) == (found[len(found) - last :], []) or (
                last >= len(found)
            )


def test_a_read_ends_at_upto(make_log: MakeLog) -> None:
    log = make_log(100)
    log.start(Delivered().take, print)
    places = [log.end()]
    for n in range(6):
        log.append(addressed(str(n), "ab"[n % 2], None))
        places.append(log.end())
    page = log.read(places[0], 10, Interest(("a",)), places[4])
    assert texts(page.entries) == ["0", "2"] and page.level and page.place == places[4]
    assert texts(log.read(page.place, 10, Interest(("a",))).entries) == ["4"]


def test_messages_to_a_client_alone_are_found_between_two_places(make_log: MakeLog) -> None:
    log = make_log(100)
    log.start(Delivered().take, print)
    start = log.end()
    log.append(addressed("to all", ALL, None))
    before = log.end()
    log.append(addressed("to x", ALL, "x"))
    log.append(addressed("to x in b", "b", "x"))
    end = log.end()
    assert not log.is_addressed(Interest(("a",), "x"), start, before)
    assert log.is_addressed(Interest(("a",), "x"), before, end)
    assert not log.is_addressed(Interest(("a",), "y"), start, end)
    assert not log.is_at_end(before) and log.is_at_end(end)


def test_before_last_counts_only_the_readers_own_entries(make_log: MakeLog) -> None:
    log = make_log(100)
    log.start(Delivered().take, print)
    for n in range(20):
        log.append(addressed(str(n), "even" if n % 2 == 0 else "odd", None))
    interest = Interest(("odd",))
    for count, expected in ((0, 0), (1, 1), (3, 3), (10, 10), (99, 10)):
        assert follow(log, log.before_last(count, interest), interest, 4) == (
            [str(n) for n in range(1, 20, 2)][10 - expected :],
            [],
        )


def keyed(
    text: str, key: str = "order 17", zone: str | All = "a", client_id: str | None = None, id: str | None = None
) -> Packet:
    return Packet(Message(text, id=id), zone, client_id, client_id is None, key=key)


def test_a_key_is_written_once_and_its_receipt_is_the_first_one(make_log: MakeLog) -> None:
    log, seen = make_log(10), Delivered()
    log.start(seen.take, print)
    first = log.append(keyed("first"))
    assert first.repeats is None and first.queued == 7
    log.append(addressed("between", "a", None))
    for text in ("second", "third"):
        again = log.append(keyed(text))
        assert (again.id, again.queued) == (first.id, 0)
        assert again.repeats is not None and again.repeats.data == "first"
    assert texts(seen) == ["first", "between"]
    assert follow(log, log.oldest(), Interest(("a",)), 5) == (["first", "between"], [])


def test_a_key_is_one_of_its_zone_and_client_and_the_first_id_stays(make_log: MakeLog) -> None:
    log, seen = make_log(20), Delivered()
    log.start(seen.take, print)
    addresses: list[tuple[str | All, str | None]] = [("a", None), ("b", None), (ALL, None), ("a", "x"), (ALL, "x")]
    ids = [log.append(keyed("1", "k", *address, id=f"own {n}")).id for n, address in enumerate(addresses)]
    assert ids == [f"own {n}" for n in range(5)]
    assert [log.append(keyed("2", "k", *address)).id for address in addresses] == ids
    log.append(keyed("3", "another"))
    assert texts(seen) == ["1"] * 5 + ["3"]


def test_a_key_is_free_again_when_its_entry_was_dropped(make_log: MakeLog) -> None:
    log, seen = make_log(3), Delivered()
    log.start(seen.take, print)
    log.append(keyed("old"))
    for n in range(3):
        log.append(packet(str(n)))
    until(lambda: log.append(keyed("new")).repeats is None or seen[-1].packet.message.data == "new")
    assert [text for text in texts(seen) if text in ("old", "new")] == ["old", "new"]
    repeats = log.append(keyed("newer")).repeats
    assert repeats is not None and repeats.data == "new"


def test_of_many_threads_that_send_a_key_one_writes_it(make_log: MakeLog) -> None:
    log, seen, ids = make_log(1000), Delivered(), set()
    log.start(seen.take, print)
    written: list[str] = []

    def send(name: str) -> None:
        for n in range(20):
            receipt = log.append(keyed(name, f"key {n}"))
            ids.add(receipt.id)
            if receipt.repeats is None:
                written.append(receipt.id)

    threads = [threading.Thread(target=send, args=(str(n),)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(written) == sorted(ids) == sorted(entry.id for entry in seen) and len(seen) == 20


@pytest.mark.parametrize("key", ["", "a\nb", "x" * 256, 17])
def test_a_key_is_a_short_text(key: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="key"):
        keyed("x", key)
