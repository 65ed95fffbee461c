"""MemoryLog: what is its own beside the contract."""

from __future__ import annotations

import os
import time

import pytest

from ssehub import Gap, LogError, MemoryLog, Message, Packet
from ssehub.log import Position


def packet(text: str) -> Packet:
    return Packet(Message(text), broadcast=True)


def test_entries_are_let_go_when_they_are_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_bounds_that_bound_nothing_are_refused(size: int, ttl: float | None) -> None:
    with pytest.raises(ValueError):
        MemoryLog(size, ttl)


def test_a_log_belongs_to_one_hub() -> None:
    log = MemoryLog()
    log.start(lambda entry: 0, print)
    with pytest.raises(LogError, match="another hub"):
        log.start(lambda entry: 1, print)


def test_a_forked_child_is_another_log_and_the_fork_is_seen() -> None:
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


def test_a_cursor_is_read_back_to_the_letter() -> None:
    place = Position((1 << 64) - 1, 10**18, "0123abcd")
    assert Position.parse(str(place)) == place
    assert Position.parse("0.0.00000000") == Position(0, 0, "00000000")
    assert Position.parse("00.0.00000000") is None
