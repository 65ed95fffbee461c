"""SQLiteLog in threads, greenlets, forked processes and signal handlers; and files with unusual names."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssehub import Hub, LogError, Message, Packet, SQLiteLog
from ssehub.log import Entry
from tests.followers import Follower
from tests.servers import ROOT, answers, free_port, gunicorn, output, process
from tests.streams import GUARD, Stream, until
from tests.threads import NoThreads, end_from_outside

MakeHub = Callable[..., Hub]


def held(path: Path) -> list[str]:
    """Return the data of all entries in the file, which must be sound."""
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT body FROM ssehub_entries ORDER BY number").fetchall()
    return [body.decode().removeprefix("data: ").strip() for (body,) in rows]


# Threads


class _AskedLock:
    """A lock that counts how often it was asked for."""

    def __init__(self) -> None:
        self.asked = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.asked += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_follower_that_looks_while_a_message_is_delivered_delivers_the_next_one_as_usual(path: Path) -> None:
    log, other = SQLiteLog(path), SQLiteLog(path)
    texts: list[str | None] = []
    breaks: list[object] = []
    lock = _AskedLock()

    def deliver(entry: Entry) -> int:
        texts.append(entry.packet.message.data)
        if texts == ["own"]:
            asked = lock.asked
            other.append(Packet(Message("other"), broadcast=True))
            until(lambda: lock.asked > asked, "the follower to look")
        return 1

    log.start(deliver, lambda *found: breaks.append(found))
    breaks.clear()  # the start is told as one
    log._replica._adding = lock  # type: ignore[assignment]
    log.append(Packet(Message("own"), broadcast=True))
    until(lambda: len(texts) == 2 or breaks)
    assert texts == ["own", "other"] and not breaks
    for one in (log, other):
        one.close()


def test_fifty_threads_that_send_at_once_each_keep_their_order(path: Path, make: MakeHub) -> None:
    hub, other = make(), make()
    follower = Follower(other)
    gate = threading.Barrier(50)

    def send(k: int) -> None:
        gate.wait(GUARD)
        for n in range(20):
            assert (hub, other)[k % 2].broadcast(f"{k} {n}").id

    threads = [threading.Thread(target=send, args=(k,)) for k in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hub.broadcast("end")
    follower.wait_for_last("end")
    assert follower.texts == held(path) and len(follower.texts) == 1001
    for k in range(50):
        assert [one for one in held(path) if one.startswith(f"{k} ")] == [f"{k} {n}" for n in range(20)]


@pytest.mark.parametrize("locked", [False, True])
def test_closing_ends_what_waits_and_leaves_no_thread_and_no_descriptor(path: Path, locked: bool) -> None:
    before = len(os.listdir("/proc/self/fd"))
    hub = Hub(SQLiteLog(path, timeout=6 * GUARD))
    follower = Follower(hub, client_id="ada", socket=False)
    refused: list[Exception] = []
    sent = threading.Event()

    def send() -> None:
        try:
            while True:
                hub.broadcast("x")
                sent.set()
        except Exception as error:
            refused.append(error)

    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=GUARD)) as shell:
        if locked:
            shell.execute("BEGIN IMMEDIATE")
        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        if locked:
            turn = hub._log._store._file._turn  # type: ignore[attr-defined]
            until(lambda: not turn.acquire(blocking=False) or turn.release())
        else:
            sent.wait(GUARD)
        hub.close(0.5)
        for thread in threads:
            thread.join(GUARD)
            assert not thread.is_alive()
    follower.join()
    assert len(refused) == 8 and all("closed" in str(error) for error in refused)
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    held(path)


@pytest.mark.parametrize("name", ["ssehub-follower", "ssehub-presence"])
def test_a_thread_that_is_ended_is_replaced(make: MakeHub, name: str) -> None:
    hub, asking = make(lease=1.0), make()
    follower = Follower(hub, client_id="ada")
    before = end_from_outside(name)
    asking.broadcast("wakes the follower")
    Follower(hub, client_id="bob")  # wakes the presence
    until(lambda: not before.is_alive())
    asking.broadcast("after")
    follower.wait_for("wakes the follower", "after")
    Follower(hub, client_id="eve")
    until(lambda: asking.is_present("eve"))
    until(lambda: hub.stats()["failing"] == {})


def test_without_a_thread_for_the_follower_a_client_comes_back_later(
    make: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_threads = NoThreads(monkeypatch, "ssehub-follower")
    hub = make()
    first = Follower(hub)
    first.join()
    assert b"retry: " in first.chunks[-1]
    no_threads.names.clear()
    second = Follower(hub)
    hub.broadcast("x")
    second.wait_for("x")


def test_without_a_thread_for_the_follower_a_message_is_accepted_and_delivered_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_threads = NoThreads(monkeypatch, "ssehub-follower")
    log = SQLiteLog(path)
    texts: list[str | None] = []

    def start() -> None:
        log.start(lambda entry: texts.append(entry.packet.message.data) or 0, lambda *_: None)

    with pytest.raises(LogError, match="new thread"):
        start()
    log.append(Packet(Message("x"), broadcast=True))
    no_threads.names.clear()
    start()
    until(lambda: texts == ["x"])
    log.close()


class Stop(Exception):
    """The exception of a signal handler."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in the callback of a weak reference
@pytest.mark.parametrize("follows", [False, True])
def test_a_signal_handler_may_raise_an_exception_at_any_moment(path: Path, make: MakeHub, follows: bool) -> None:
    log, other = SQLiteLog(path, timeout=2.0), make()
    follower = Follower(other)
    heard: list[str | None] = []
    if follows:
        log.start(lambda entry: heard.append(entry.packet.message.data) or 0, lambda end, commands: None)

    def stop(number: int, frame: object) -> None:
        raise Stop

    earlier = signal.signal(signal.SIGALRM, stop)
    accepted, stopped = [], 0
    try:
        for n in range(2000):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + n % 500 * 1e-6)
                for k in range(3):
                    log.append(Packet(Message(f"{n} {k}"), broadcast=True))
                    accepted.append(f"{n} {k}")
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Stop:
                stopped += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert stopped > 100
    log.append(Packet(Message("end"), broadcast=True))
    follower.wait_for_last("end")
    found = held(path)
    assert len(found) == len(set(found)) and set(found) >= set(accepted)
    assert follower.texts == found
    if follows:
        until(lambda: log.end() == other._log.end())
        assert len(heard) == len(set(heard)), "none twice"
        page = log.read(log.oldest(), len(found) + 1)
        assert [entry.packet.message.data for entry in page.entries] == found
    log.close()


def test_a_signal_handler_may_send_itself(path: Path, make: MakeHub) -> None:
    hub = make(timeout=2.0)
    follower = Follower(hub, socket=False)
    outcomes: list[str] = []

    def send(number: int, frame: object) -> None:
        try:
            outcomes.append(hub.broadcast(f"from the handler {len(outcomes)}").id)
        except LogError as error:
            assert "signal handler" in str(error)
            outcomes.append("")

    earlier = signal.signal(signal.SIGALRM, send)
    try:
        for n in range(1000):
            signal.setitimer(signal.ITIMER_REAL, 1e-6 + n % 300 * 1e-6)
            hub.broadcast(str(n))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    hub.broadcast("end")
    follower.wait_for_last("end")
    assert follower.texts == held(path) and {str(n) for n in range(1000)} < set(held(path))
    assert "" in outcomes and set(outcomes) != {""}


# Forks


FORKING = """
import os, sys, threading
from ssehub import Hub, SQLiteLog
path = sys.argv[1]
hub, log = Hub(SQLiteLog(path)), SQLiteLog(path)
mine = hub.stream()
next(mine)
stop = threading.Event()
def send(k):
    n = 0
    while not stop.is_set():
        hub.broadcast(f"parent {k} {n}")
        n += 1
threads = [threading.Thread(target=send, args=(k,)) for k in range(3)]
for thread in threads: thread.start()
children = []
for child in range(10):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            for n in range(10):
                hub.broadcast(f"child {child} {n}")
            hub.close()
            code = 0
        finally:
            os._exit(code)
    children.append(pid)
print(*(os.waitpid(pid, 0)[1] for pid in children))
stop.set()
for thread in threads: thread.join()
hub.broadcast("end")
mine.close()
hub.close()
"""


def test_children_of_a_process_with_threads_send_over_connections_of_their_own(path: Path, make: MakeHub) -> None:
    follower = Follower(make(), since="oldest")
    assert output(FORKING, path, PYTHONWARNINGS="ignore") == "0 0 0 0 0 0 0 0 0 0\n"
    follower.wait_for_last("end")
    found = held(path)
    assert follower.texts == found
    for child in range(10):
        mine = [text for text in found if text.startswith(f"child {child} ")]
        assert mine == [f"child {child} {n}" for n in range(10)]


POOL = """
import multiprocessing, sys
from ssehub import Hub, SQLiteLog
hub = Hub(SQLiteLog(sys.argv[1]))
def send(n):
    return hub.broadcast(str(n)).id
if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    hub.broadcast("parent")
    with multiprocessing.Pool(4) as pool:
        assert len(set(pool.map(send, range(200)))) == 200
        pool.close()
        pool.join()
    hub.broadcast("end")
    hub.close()
"""


def test_a_pool_of_forked_processes_sends(path: Path, make: MakeHub) -> None:
    follower = Follower(make())
    assert output(POOL, path, PYTHONWARNINGS="ignore") == ""
    follower.wait_for_last("end")
    assert sorted(follower.texts) == sorted(["parent", "end", *map(str, range(200))])
    assert follower.texts == held(path)


def test_a_fork_does_not_wait_for_a_message_that_waits(path: Path, make: MakeHub) -> None:
    hub = make(timeout=6 * GUARD)
    hub.broadcast("first")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        sending = threading.Thread(target=hub.broadcast, args=("waits",))
        sending.start()
        turn = hub._log._store._file._turn  # type: ignore[attr-defined]
        until(lambda: not turn.acquire(blocking=False) or turn.release())
        output("")  # a process is started
        before = time.monotonic()
        child = os.fork()
        if not child:
            os._exit(int(hub._log._store._file._connection is not None))  # type: ignore[attr-defined]
        assert os.waitpid(child, 0)[1] == 0
        assert time.monotonic() - before < GUARD / 2
        shell.execute("COMMIT")
    sending.join(GUARD)
    assert held(path) == ["first", "waits"]


PRELOADED = """
import os
from ssehub import Hub, SQLiteLog
from ssehub.service import create_app
hub = Hub(SQLiteLog(os.environ["HUB_FILE"]), heartbeat=1)
hub.broadcast("at the import")
app = create_app(hub, public=False)
"""


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_workers_that_were_forked_after_a_message_serve_the_same_log(
    tmp_path: Path, path: Path, make: MakeHub, worker: str
) -> None:
    (tmp_path / "preloaded.py").write_text(PRELOADED)
    port = free_port()
    command = gunicorn(worker, port, "--preload", "--workers", "3", "--pythonpath", str(tmp_path), app="preloaded:app")
    with process(*command, stop=signal.SIGTERM, HUB_FILE=str(path)):
        until(lambda: answers(port), "gunicorn to answer", 3 * GUARD)
        streams = [Stream(port, "/events") for _ in range(6)]
        for stream in streams:
            stream.opened()
        hub = make()
        for n in range(20):
            hub.broadcast(str(n))
        for stream in streams:
            assert stream.data(20) == [str(n) for n in range(20)]
            stream.close()
    assert held(path) == ["at the import", *map(str, range(20))]


GEVENT = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, random, sys
from ssehub import Hub, LogError, SQLiteLog
hub, other = (Hub(SQLiteLog(sys.argv[1], timeout=5.0)) for _ in range(2))
heard = []
def listen():
    for chunk in other.stream():
        heard.append(chunk)
        if b"data: end" in chunk:
            break
listener = gevent.spawn(listen)
while not heard: gevent.sleep(0.001)
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.001)
ticker = gevent.spawn(tick)
accepted = []
def send(k):
    for n in range(50):
        hub.broadcast(f"{k} {n}")
        accepted.append(f"{k} {n}")
        gevent.sleep(0)
gevent.joinall([gevent.spawn(send, k) for k in range(10)], raise_error=True)
chance = random.Random(1)
for round in range(60):
    victims = [gevent.spawn(send, f"killed {round} {k}") for k in range(3)]
    gevent.sleep(chance.random() * 0.005)
    gevent.killall(victims)
hub.broadcast("end")
listener.join(20)
text = b"".join(heard).decode()
missing = [one for one in accepted if f"data: {one}\\n" not in text]
print(listener.dead, len(ticks) > 10, missing, text.count("data: end"))
ticker.kill()
hub.close()
other.close()
"""


def test_greenlets_send_follow_and_are_killed_in_the_middle(path: Path, make: MakeHub) -> None:
    pytest.importorskip("gevent")
    assert output(GEVENT, path) == "True True [] 1\n"
    found = held(path)
    assert len(found) == len(set(found)) and found[-1] == "end"


def test_greenlets_run_on_while_a_message_waits_for_another_program(path: Path, make: MakeHub) -> None:
    pytest.importorskip("gevent")
    make().broadcast("first")
    code = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, sqlite3, sys
from ssehub import Hub, SQLiteLog
shell = sqlite3.connect(sys.argv[1], isolation_level=None)
shell.execute("BEGIN IMMEDIATE")
hub = Hub(SQLiteLog(sys.argv[1]))
sending = gevent.spawn(hub.broadcast, "waits")
ticks = 0
while ticks < 100:
    gevent.sleep(0.001)
    ticks += 1
assert not sending.dead
shell.execute("COMMIT")
sending.get()
hub.close()
"""
    assert output(code, path) == ""
    assert held(path) == ["first", "waits"]


# Creating the file, and its name


CREATING = """
import sys
from ssehub import Hub, SQLiteLog
hub = Hub(SQLiteLog(sys.argv[1]))
sys.stdin.readline()
hub.broadcast("x")
print(hub._log.cursor().epoch)
hub.close()
"""


def test_eight_processes_that_create_the_file_at_once_create_one_log(path: Path) -> None:
    command = [sys.executable, "-c", CREATING, str(path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) for _ in range(8)]
    for one in processes:
        assert one.stdin is not None
        one.stdin.write(b"\n")
    for one in processes:
        assert one.stdin is not None
        one.stdin.flush()
    answers = [one.communicate(timeout=6 * GUARD)[0] for one in processes]
    assert len(set(answers)) == 1 and answers[0]
    assert held(path) == ["x"] * 8


@pytest.mark.parametrize("name", ["with a space", "ä🐍", "what?mode=ro", "a#b", "100%25", "'quoted'", "-x", "a" * 200])
def test_a_file_may_have_any_name(tmp_path: Path, make_hub: MakeHub, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    hub, sender = (make_hub(SQLiteLog(folder / name)) for _ in range(2))
    follower = Follower(hub)
    sender.broadcast("x")
    follower.wait_for("x")
    assert held(folder / name) == ["x"]
    assert (folder / name).stat().st_mode & 0o777 == 0o600
    until(lambda: len(list((folder / f"{name}-followers").iterdir())) == 1)


@pytest.fixture
def in_folder(tmp_path: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(tmp_path)
    yield tmp_path
    os.chdir(before)


def test_a_relative_path_stays_where_it_was(in_folder: Path, make_hub: MakeHub) -> None:
    hub = make_hub(SQLiteLog("hub.db"))
    os.chdir("/")
    hub.broadcast("x")
    assert held(in_folder / "hub.db") == ["x"]


def test_wakes_reach_a_folder_with_a_long_path_also_after_it_was_deleted(tmp_path: Path, make_hub: MakeHub) -> None:
    folder = tmp_path / ("a" * 120)
    folder.mkdir()
    hub, sender = (make_hub(SQLiteLog(folder / "hub.db")) for _ in range(2))
    Follower(hub)
    sockets = folder / "hub.db-followers"
    until(lambda: len(list(sockets.iterdir())) == 1)
    wakes = hub._log._store._wakes  # type: ignore[attr-defined]
    received = wakes._own.recv
    for _ in range(2):
        sender.broadcast("x")
        (socket,) = sockets.iterdir()
        sender._log._store._wakes.send(own=False)  # type: ignore[attr-defined]
        assert socket.exists(), "it is not taken for a dead one"
        socket.unlink()
        sockets.rmdir()
        until(lambda: sockets.exists() and len(list(sockets.iterdir())) == 1)
    assert received
