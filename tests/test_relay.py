"""Relay: whose turn it is to wake."""

from __future__ import annotations

import queue

from ssehub.server.wakeups import Relay


class Sleeper:
    def __init__(self) -> None:
        self.turn: queue.Queue[None] = queue.Queue()

    @property
    def has_turn(self) -> bool:
        return not self.turn.empty()


def test_only_so_many_hold_a_turn_and_each_passes_it_on_in_line() -> None:
    relay, sleepers = Relay(turns=2), [Sleeper() for _ in range(5)]
    relay.enlist(sleepers)
    assert [one.has_turn for one in sleepers] == [True, True, False, False, False]
    relay.pass_on()
    assert [one.has_turn for one in sleepers] == [True, True, True, False, False]
    for _ in range(4):
        relay.pass_on()
    assert all(one.has_turn for one in sleepers)


def test_turns_that_nobody_waits_for_are_kept() -> None:
    relay, first, second, third = Relay(turns=2), Sleeper(), Sleeper(), Sleeper()
    relay.enlist([first])
    relay.pass_on()
    relay.enlist([second, third])
    assert second.has_turn and third.has_turn


def test_whoever_leaves_the_line_takes_no_turn_with_him() -> None:
    relay, holder, leaver, last = Relay(turns=1), Sleeper(), Sleeper(), Sleeper()
    relay.enlist([holder, leaver, last])
    relay.withdraw(leaver)  # still in line
    relay.withdraw(holder)  # has the turn already
    assert last.has_turn and not leaver.has_turn
    relay.pass_on()
    again = Sleeper()
    relay.enlist([again])
    assert again.has_turn
