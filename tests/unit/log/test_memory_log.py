"""MemoryLog: its behaviour beyond the contract of all logs."""

from __future__ import annotations

import os
import random
import time

import pytest

from ssehub import Gap, LogError, MemoryLog, Message, Packet
from ssehub.log import Interest, Place, Position


def packet(text: str) -> Packet:
    return Packet(Message(text), broadcast=True)


def test_old_entries_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    log = MemoryLog(size=100, ttl=60)
    log.start(lambda entry: 0, print)
    start = log.end()
    log.append(packet("old"))
    now += 40
    log.append(packet("young"))
    assert len(log.read(start, 10).entries) == 2
    now += 30
    page = log.read(start, 10)
    assert page.gap is not None and (page.gap.reason, page.gap.missed) == ("trimmed", 1)
    assert [entry.packet.message.data for entry in log.read(page.gap.place, 10).entries] == ["young"]
    now += 100
    assert log.oldest() == log.end()
    assert log.read(log.end(), 10).level


@pytest.mark.parametrize(("size", "ttl"), [(0, None), (-1, None), (10, 0), (10, -1), (10, float("nan"))])
def test_invalid_limits_are_rejected(size: int, ttl: float | None) -> None:
    with pytest.raises(ValueError):
        MemoryLog(size, ttl)


def test_only_one_hub_can_use_a_log() -> None:
    log = MemoryLog()
    log.start(lambda entry: 0, print)
    with pytest.raises(LogError, match="another hub"):
        log.start(lambda entry: 1, print)


def test_a_forked_child_has_another_log_and_the_fork_is_noticed() -> None:
    log = MemoryLog()

    def deliver(entry: object) -> int:
        return 0

    log.start(deliver, print)
    log.append(packet("before"))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        log.start(deliver, print)
        log.append(packet("in the child"))
        os.write(writer, str(log.end()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    cursor = os.read(reader, 1000).decode()
    os.close(reader)
    os.close(writer)
    log.append(packet("in the parent"))
    place = log.locate(cursor)
    assert isinstance(place, Position)
    gap = log.read(place, 10).gap
    assert isinstance(gap, Gap) and gap.reason == "fork"


def test_only_exact_cursors_are_parsed() -> None:
    place = Position((1 << 64) - 1, 10**18, "0123abcd")
    assert Position.parse(str(place)) == place
    assert Position.parse("0.0.00000000") == Position(0, 0, "00000000")
    assert Position.parse("00.0.00000000") is None


def to_zone(text: str, zone: str) -> Packet:
    return Packet(Message(text), zone, broadcast=True)


def follow(log: MemoryLog, place: Place, *zones: str) -> tuple[list[str | None], int | None]:
    """Read to the end, as a connection does. Return the texts, and the number of messages reported missing."""
    found: list[str | None] = []
    missing: int | None = 0
    known: Place | None = None
    while True:
        page = log.read(place, 3, Interest(zones), None, known)
        if page.gap:
            missing = None if missing is None or page.gap.missed is None else missing + page.gap.missed
            place, known = page.gap.place, page.place
            continue
        found += [entry.packet.message.data for entry in page.entries]
        place = page.place
        if page.level:
            return found, missing


def test_with_zone_size_a_busy_zone_does_not_push_out_a_quiet_one() -> None:
    log = MemoryLog(100, zone_size=10)
    log.start(lambda entry: 0, print)
    start = log.end()
    log.append(to_zone("for the quiet", "quiet"))
    for n in range(200):
        log.append(to_zone(str(n), "busy"))
    assert follow(log, start, "quiet") == (["for the quiet"], 0)
    assert follow(log, start, "busy") == ([str(n) for n in range(101, 200)], 101)


def test_without_zone_size_only_the_client_that_lost_messages_gets_a_gap() -> None:
    log = MemoryLog(100)
    log.start(lambda entry: 0, print)
    start = log.end()
    log.append(to_zone("for the quiet", "quiet"))
    place = log.end()
    for n in range(200):
        log.append(to_zone(str(n), "busy"))
    assert follow(log, start, "quiet") == ([], 1)
    assert follow(log, place, "quiet") == ([], 0)
    assert follow(log, place, "other") == ([], 0)


def test_every_sent_message_is_either_held_or_reported_missing() -> None:
    chance = random.Random(3)
    for _ in range(60):
        size = chance.randint(1, 20)
        log = MemoryLog(size, zone_size=chance.randint(1, size))
        log.start(lambda entry: 0, print)
        start, sent = log.end(), []
        for n in range(chance.randint(0, 80)):
            sent.append((str(n), chance.choice("aaaabbc")))
            log.append(to_zone(*sent[-1]))
        for zones in ("a", "c", "ab", "abc"):
            mine = [text for text, zone in sent if zone in zones]
            found, missing = follow(log, start, *zones)
            assert missing == len(mine) - len(found)
            assert found == [text for text in mine if text in found]


def test_a_message_that_is_dropped_during_the_report_of_a_gap_is_reported_too() -> None:
    log = MemoryLog(4, zone_size=3)
    log.start(lambda entry: 0, print)
    start = log.end()
    log.append(to_zone("quiet", "q"))
    for n in range(8):
        log.append(to_zone(str(n), "b"))
    page = log.read(start, 10, Interest(("q", "b")))
    assert [entry.packet.message.data for entry in page.entries] == ["quiet"]
    page = log.read(start, 0, Interest(("q", "b")))
    log.append(to_zone("x", "other"))  # this drops the entry of the quiet zone
    found, missing = follow(log, start, "q", "b")
    assert found == ["5", "6", "7"] and missing == 6


def test_memory_stays_bounded_when_requests_invent_zones_and_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssehub.log.index._REMEMBERED", 100)
    log = MemoryLog(20, zone_size=5)
    log.start(lambda entry: 0, print)
    start = log.end()
    for n in range(5000):
        log.append(Packet(Message("x"), f"zone {n}", f"client {n}" if n % 2 else None, broadcast=not n % 2))
    history, index = log.history, log.history._index
    tables = (history._entries, history._spare, index._zones, index._clients, index._gone, index._dropped)
    assert all(len(table) <= 200 for table in tables)
    # The dropped entries are forgotten. One of them may have been for this client, so it gets a gap.
    assert follow(log, start, "zone 2")[1] is None and follow(log, log.end(), "zone 2") == ([], 0)


@pytest.mark.parametrize("zone_size", [0, 11, -1])
def test_an_invalid_zone_size_is_rejected(zone_size: int) -> None:
    with pytest.raises(ValueError, match="zone_size"):
        MemoryLog(10, zone_size=zone_size)
