"""Wakeups: which connections sleep, which are woken, and how turns are passed on."""

from __future__ import annotations

import queue
import threading
from typing import Any, cast

from ssehub.events import Message
from ssehub.log import ALL, Entry, Packet, Position
from ssehub.server.wakeups import TURNS, Wakeups
from tests.streams import GUARD, until


class Sleeper:
    """A fake connection with a thread that sleeps in Wakeups. It has only the attributes that Wakeups uses."""

    def __init__(self, wakeups: Wakeups, name: str, zone: str = "default", level: bool = True) -> None:
        self.id, self.zones, self.partitions, self.home = name, (zone,), (0,), 0
        self.closed: str | None = None
        self.queue: queue.Queue[Any] = queue.Queue()
        self.reader = self
        self.level = level
        self._wakeups = wakeups

    def is_level(self) -> bool:
        return self.level

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self._wakeups.sleep, args=(self,))
        thread.start()
        until(lambda: self.id in self._wakeups._sleepers or not thread.is_alive())
        return thread


def entry(zone: Any, partition: int = 0) -> Entry:
    return Entry(Packet(Message("x"), zone, broadcast=True), Position(1, 1, "0" * 8, partition), "0" * 8, b"")


def test_an_entry_wakes_only_connections_in_its_zone() -> None:
    wakeups = Wakeups()
    here, there = Sleeper(wakeups, "1", "here"), Sleeper(wakeups, "2", "there")
    threads = here.start(), there.start()
    wakeups.announce(entry("here"), None)
    threads[0].join(GUARD)
    assert not threads[0].is_alive() and threads[1].is_alive()
    wakeups.announce(entry(ALL, partition=1), None)  # not the home partition
    assert threads[1].is_alive()
    wakeups.announce(entry(ALL), None)
    threads[1].join(GUARD)
    assert not threads[1].is_alive() and not wakeups._zones


def test_a_connection_with_something_to_do_does_not_sleep() -> None:
    wakeups = Wakeups()
    busy, closed = Sleeper(wakeups, "1", level=False), Sleeper(wakeups, "2")
    closed.closed = "shutdown"
    for one in (busy, closed):
        one.start().join(GUARD)
    assert not wakeups._sleepers and wakeups._free == TURNS


def test_the_number_of_turns_is_limited_and_each_turn_is_passed_on() -> None:
    wakeups = Wakeups(turns=2)
    sleepers = [Sleeper(wakeups, str(n)) for n in range(5)]
    for one in sleepers:
        assert wakeups._enter(cast(Any, one))
    wakeups.announce(entry("default"), None)
    assert [one.queue.qsize() for one in sleepers] == [1, 1, 0, 0, 0]
    wakeups._pass_on()
    assert [one.queue.qsize() for one in sleepers] == [1, 1, 1, 0, 0]
    for _ in range(4):
        wakeups._pass_on()
    assert [one.queue.qsize() for one in sleepers] == [1] * 5 and wakeups._free == 2


def test_a_connection_that_leaves_the_line_gives_back_its_turn() -> None:
    wakeups = Wakeups(turns=1)
    holder, leaver, last = (Sleeper(wakeups, str(n)) for n in range(3))
    for one in (holder, leaver, last):
        wakeups._enter(cast(Any, one))
    wakeups.announce(entry("default"), None)
    wakeups._withdraw(cast(Any, leaver))  # the connection is still in the line
    wakeups._withdraw(cast(Any, holder))  # the connection has the turn already
    assert (leaver.queue.qsize(), last.queue.qsize()) == (0, 1)


def test_no_wake_up_is_lost_between_the_last_check_and_the_sleep() -> None:
    wakeups = Wakeups()
    one = Sleeper(wakeups, "1")

    def announced_meanwhile() -> bool:
        wakeups.announce(entry("default"), None)
        return True

    one.is_level = announced_meanwhile  # type: ignore[method-assign]
    one.start().join(GUARD)
    assert not wakeups._sleepers and wakeups._free == TURNS
