"""SQLiteLog: processes that share a file. Order, transactions, kills, and the sockets that wake the processes."""

from __future__ import annotations

import random
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssehub import Hub, SQLiteLog
from tests.followers import Follower
from tests.servers import ROOT
from tests.streams import GUARD, until

MakeHub = Callable[..., Hub]
#: The number of entries of a test with many processes.
COUNT = 12_000


class Program:
    """A process that runs ``tests.apps.chain``, and the lines that it has printed."""

    def __init__(self, path: Path, number: int, *arguments: object) -> None:
        self._printed = path.with_name(f"printed {number}")
        command = [sys.executable, "-m", "tests.apps.chain", arguments[0], f"sqlite:{path}", *map(str, arguments[1:])]
        with self._printed.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, cwd=ROOT)  # type: ignore[arg-type]

    @property
    def lines(self) -> list[str]:
        """The lines so far, without one that is being written."""
        return self._printed.read_text().split("\n")[:-1]

    def join(self) -> list[str]:
        """Wait until the process has ended. Return its lines."""
        assert self.process.wait(6 * GUARD) == 0
        return self.lines

    def kill(self) -> None:
        """Kill the process, wherever it is."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def run(path: Path) -> Iterator[Callable[..., Program]]:
    """Return a function that starts a program. Kill those that still run after the test."""
    programs: list[Program] = []

    def start(*arguments: object) -> Program:
        programs.append(Program(path, len(programs), *arguments))
        return programs[-1]

    yield start
    for one in programs:
        one.kill()


def followers(run: Callable[..., Program], count: int) -> list[Program]:
    """Start processes that follow the log, and wait until they do."""
    found = [run("follow") for _ in range(count)]
    for one in found:
        until(lambda one=one: one.lines, "a follower to start", 3 * GUARD)
    return found


def finish(path: Path, programs: list[Program]) -> list[list[str]]:
    """Send the last message. Return the lines of the followers."""
    hub = Hub(SQLiteLog(path))
    hub.broadcast("end")
    hub.close()
    return [one.join()[1:-1] for one in programs]


def is_sound(path: Path) -> bool:
    with sqlite3.connect(path) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return found == [("ok",)]


def sockets(path: Path) -> list[str]:
    return sorted(one.name for one in Path(f"{path}-followers").iterdir())


# Order


def test_each_of_four_followers_sees_what_eight_processes_append_once_and_in_one_order(
    path: Path, run: Callable[..., Program]
) -> None:
    follow = followers(run, 4)
    senders = [run("send", seed, COUNT // 8) for seed in range(8)]
    for sender in senders:
        sender.join()
    seen = finish(path, follow)
    assert seen[0] == seen[1] == seen[2] == seen[3] and len(seen[0]) == COUNT
    for seed in range(8):
        assert [one for one in seen[0] if one.startswith(f"{seed}-")] == [f"{seed}-{n}" for n in range(COUNT // 8)]
    assert is_sound(path)


def test_messages_in_transactions_are_seen_after_the_commit_in_the_order_of_the_commits(
    path: Path, run: Callable[..., Program]
) -> None:
    Hub(SQLiteLog(path)).broadcast("creates the file")
    application = sqlite3.connect(path)
    application.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, data TEXT)")
    follow = followers(run, 4)
    within = [run("within", seed, COUNT // 8) for seed in range(4)]
    alone = [run("send", seed, COUNT // 8) for seed in range(4, 8)]
    committed = [one.join() for one in within]
    accepted = [one.join() for one in alone]
    seen = finish(path, follow)
    assert seen[0] == seen[1] == seen[2] == seen[3]
    assert sorted(seen[0]) == sorted(one for lines in (*committed, *accepted) for one in lines)
    orders = [data for (data,) in application.execute("SELECT data FROM orders ORDER BY id")]
    assert [one for one in seen[0] if int(one[0]) < 4] == orders
    assert len(orders) < COUNT / 2 and sum(map(len, accepted)) == COUNT // 2
    application.close()
    assert is_sound(path)


# Kills


def test_killed_processes_leave_nothing_half_done_and_their_sockets_are_removed(
    path: Path, run: Callable[..., Program]
) -> None:
    Hub(SQLiteLog(path)).broadcast("creates the file")
    application = sqlite3.connect(path)
    application.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, data TEXT)")
    (survivor,) = followers(run, 1)
    chance, killed = random.Random(3), []
    for n in range(0, 12, 3):
        victims = [run("follow"), run("send", n, 10**6), run("within", n + 1, 10**6), run("send", n + 2, 10**6)]
        for one in victims:
            until(lambda one=one: len(one.lines) > chance.randint(1, 200), "a process to send", 3 * GUARD)
            one.kill()
        killed += victims[1:]
    (seen,) = finish(path, [survivor])
    orders = [data for (data,) in application.execute("SELECT data FROM orders ORDER BY id")]
    application.close()
    assert len(seen) == len(set(seen)) and not [one for one in seen if one.startswith("fault")]
    for n, one in enumerate(killed):
        mine = [text for text in seen if text.startswith(f"{n}-")]
        assert mine[: len(one.lines)] == one.lines
        if n % 3 == 1:  # all or none of the last transaction
            assert mine == [text for text in orders if text.startswith(f"{n}-")]
        else:
            assert len(mine) <= len(one.lines) + 1
    assert is_sound(path)
    assert sockets(path) == []


def test_the_socket_of_a_dead_process_is_removed_and_another_file_in_the_folder_stays(
    path: Path, make_hub: MakeHub
) -> None:
    hub = make_hub(SQLiteLog(path))
    follower = Follower(make_hub(SQLiteLog(path)))
    until(lambda: len(sockets(path)) == 1)
    folder = Path(f"{path}-followers")
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(folder / ("0" * 16)))
    dead.close()
    (folder / "notes").write_text("x")
    (folder / ("f" * 16)).mkdir()
    until(lambda: hub.broadcast("x").id and "0" * 16 not in sockets(path))
    assert len(sockets(path)) == 3 and "notes" in sockets(path)
    follower.wait_for_last("x")
