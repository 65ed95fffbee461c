"""The log in a SQLite file when something fails: the disk, the file, its folder, other programs, signals."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ssehub import Hub, LogError, SQLiteLog
from ssehub.log.sqlite.place import file_system
from tests.followers import Follower
from tests.servers import missing, output
from tests.streams import GUARD, until

MakeHub = Callable[..., Hub]


def held(path: Path) -> list[str]:
    """Return the data of all entries in the file."""
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT body FROM ssehub_entries ORDER BY number").fetchall()
    return [body.decode().removeprefix("data: ").strip() for (body,) in rows]


def sends(hub: Hub, text: str) -> bool:
    """Send a message, and return whether it was accepted."""
    try:
        hub.broadcast(text)
    except LogError:
        return False
    return True


# A file that is replaced, deleted or restored


def backup(path: Path) -> Path:
    copy = path.with_name("backup.db")
    with contextlib.closing(sqlite3.connect(path)) as one, contextlib.closing(sqlite3.connect(copy)) as other:
        one.backup(other)
    return copy


def test_if_the_file_is_replaced_by_an_older_copy_clients_are_told_and_nothing_is_lost(
    path: Path, make: MakeHub
) -> None:
    first, second, sender = make(), make(), make()
    one, two, quiet = Follower(first), Follower(second), Follower(second, zone="quiet")
    for n in range(5):
        first.broadcast(f"kept {n}", zone="default")
    copy = backup(path)
    for n in range(5):
        sender.broadcast(f"lost {n}", zone="default")
    before = [*(f"kept {n}" for n in range(5)), *(f"lost {n}" for n in range(5))]
    for follower in (one, two):
        follower.wait_for(*before)
    os.replace(copy, path)
    for follower in (one, two):
        follower.wait_for(*before, "gap ahead None")
    quiet.wait_for("gap ahead None")
    for n, hub in enumerate((sender, first, second)):
        hub.broadcast(f"new {n}")
    for follower in (one, two):
        follower.wait_for(*before, "gap ahead None", "new 0", "new 1", "new 2")
    assert held(path) == [*before[:5], "new 0", "new 1", "new 2"]


def test_a_message_that_meets_the_replacement_is_in_the_new_file(path: Path, make: MakeHub) -> None:
    hubs = [make() for _ in range(3)]
    hubs[0].broadcast("kept")
    followers = [Follower(hub, since="oldest") for hub in hubs[:2]]
    accepted: list[list[str]] = [[], [], []]
    stop = threading.Event()

    def send(k: int) -> None:
        n = 0
        while not stop.is_set():
            if sends(hubs[k], f"{k} {n}"):
                accepted[k].append(f"{k} {n}")
            n += 1

    threads = [threading.Thread(target=send, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(8):
            copy = backup(path)
            counts = [len(one) for one in accepted]
            until(lambda counts=counts: all(len(one) > n + 3 for one, n in zip(accepted, counts, strict=True)))
            os.replace(copy, path)
            counts = [len(one) for one in accepted]
            until(lambda counts=counts: all(len(one) > n + 3 for one, n in zip(accepted, counts, strict=True)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for k in range(3):  # all that was accepted after the last replacement
        mine = [text for text in held(path) if text.startswith(f"{k} ")]
        assert len(mine) == len(set(mine)) and mine[-3:] == accepted[k][-3:]
    hubs[0].broadcast("end")
    for follower in followers:
        follower.wait_for_last("end")


def test_what_stays_beside_a_replaced_file_does_not_become_part_of_the_new_one(path: Path, make: MakeHub) -> None:
    hub = make()
    hub.broadcast("kept")
    copy = backup(path)
    for n in range(100):
        hub.broadcast(str(n))
    assert Path(f"{path}-wal").stat().st_size > 100_000
    os.replace(copy, path)
    hub.broadcast("new")
    assert held(path) == ["kept", "new"]


def test_a_copy_that_is_restored_into_the_file_is_noticed(path: Path, make: MakeHub) -> None:
    hub, sender = make(), make()
    follower = Follower(hub)
    hub.broadcast("kept")
    copy = backup(path)
    for n in range(3):
        sender.broadcast(f"lost {n}")
    follower.wait_for_last("lost 2")
    with contextlib.closing(sqlite3.connect(copy)) as one, contextlib.closing(sqlite3.connect(path)) as other:
        one.backup(other)  # .restore of the shell
        other.execute("PRAGMA journal_mode = WAL")
    follower.wait_for_last("gap ahead None")
    sender.broadcast("new")
    follower.wait_for("kept", "lost 0", "lost 1", "lost 2", "gap ahead None", "new")


@pytest.mark.parametrize("ends", [[""], ["", "-wal"], ["", "-wal", "-shm"], ["-wal"], ["-shm"]])
def test_a_deleted_file_is_a_new_log(path: Path, make: MakeHub, ends: list[str]) -> None:
    hub, sender = make(), make()
    follower = Follower(hub)
    sender.broadcast("before")
    follower.wait_for("before")
    for end in ends:
        os.unlink(f"{path}{end}")
    until(lambda: sends(sender, "after"))
    until(lambda: follower.texts[-1] == "after")
    if "" in ends:
        assert follower.texts == ["before", "gap epoch None", "after"]
    hub.broadcast("again")
    follower.wait_for_last("again")
    assert held(path)[-2:] == ["after", "again"]
    until(lambda: hub.stats()["failing"] == {})  # the presence tries again after 50 ms


def test_without_the_folder_of_the_sockets_messages_arrive_and_it_is_made_again(path: Path, make: MakeHub) -> None:
    hub, sender = make(), make()
    follower = Follower(hub)
    folder = Path(f"{path}-followers")
    until(folder.exists)
    shutil.rmtree(folder)
    sender.broadcast("a")
    follower.wait_for("a")
    until(lambda: folder.exists() and len(list(folder.iterdir())) == 1)
    sender.broadcast("b")
    follower.wait_for("a", "b")


def test_a_file_in_the_place_of_the_folder_does_no_harm(path: Path, make: MakeHub) -> None:
    Path(f"{path}-followers").write_text("x")
    hub, sender = make(), make()
    follower = Follower(hub)
    sender.broadcast("a")
    follower.wait_for("a")


# A disk that is full


def test_while_the_disk_is_full_messages_are_refused_and_none_is_lost_or_doubled(
    tmp_path: Path, make_hub: MakeHub
) -> None:
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        missing("the right to mount")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run([str(mount), "-t", "tmpfs", "-o", "size=3m", "none", str(place)], check=False)
    if mounted.returncode:
        missing("the right to mount")
    try:
        hub, sender = (make_hub(SQLiteLog(place / "hub.db", timeout=1.0)) for _ in range(2))
        follower = Follower(hub)
        accepted = []
        for fill in (False, True, True):
            ballast = place / "ballast"
            if fill:
                with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(4096))
            answers = []
            for n in range(200):
                text = f"{len(accepted)} {n} {'x' * 1000}"
                answers.append(sends((hub, sender)[n % 2], text))
                accepted += [text] if answers[-1] else []
            assert all(answers) != fill
            ballast.unlink(missing_ok=True)
            until(lambda: sends(sender, "room"))
            accepted.append("room")
        until(lambda: follower.texts == accepted, f"{len(accepted)}")
        until(lambda: hub.stats()["failing"] == {})
        assert held(place / "hub.db") == accepted
    finally:
        hub.close()
        sender.close()
        follower.join()
        subprocess.run(["umount", str(place)], check=True)


# Locks of other programs


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_while_another_program_writes_messages_wait_and_are_refused_after_the_timeout(
    make: MakeHub, shell: sqlite3.Connection, lock: str
) -> None:
    patient, hasty = make(timeout=6 * GUARD), make(timeout=0.1)
    follower = Follower(make(timeout=0.1))
    shell.execute(lock)
    with pytest.raises(LogError, match=r"another program has locked .*hub"):
        hasty.broadcast("refused")
    sending = threading.Thread(target=patient.broadcast, args=("waits",))
    sending.start()
    assert Follower(make()).texts == []  # reading goes on
    shell.execute("COMMIT")
    sending.join(GUARD)
    hasty.broadcast("accepted")
    follower.wait_for("waits", "accepted")


def test_a_process_that_ends_while_another_program_writes_is_forgotten_without_a_complaint(
    make: MakeHub, shell: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    hub = make()
    Follower(hub)
    shell.execute("BEGIN IMMEDIATE")
    closing = threading.Thread(target=hub.close)
    closing.start()
    until(lambda: hub._log.presence._closed)  # type: ignore[union-attr]
    turn = hub._log._store._file._turn  # type: ignore[attr-defined]
    until(lambda: caplog.messages or not turn.acquire(blocking=False) or turn.release(), "the process to wait")
    shell.execute("ROLLBACK")
    closing.join(GUARD)
    assert shell.execute("SELECT count(*) FROM ssehub_processes").fetchall() == [(0,)]
    assert not caplog.messages


def test_a_program_that_lets_nobody_read_is_waited_for(path: Path, make: MakeHub) -> None:
    creator = make()
    creator.broadcast("creates the file")
    creator.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as shell:
        shell.execute("PRAGMA locking_mode = EXCLUSIVE")
        shell.execute("SELECT * FROM ssehub_head").fetchall()
        hub, patient = make(timeout=0.2), make(timeout=6 * GUARD)
        with pytest.raises(LogError, match=r"another program has locked .*hub"):
            hub.broadcast("refused")
        assert b"ssehub.open" not in b"".join(hub.stream())
        sending = threading.Thread(target=patient.broadcast, args=("waits",))
        sending.start()
    sending.join(GUARD)
    Follower(hub, since="oldest").wait_for("creates the file", "waits")


def test_a_long_reader_stops_nothing(path: Path, make: MakeHub, shell: sqlite3.Connection) -> None:
    hub = make(size=50)
    follower = Follower(hub)
    shell.execute("BEGIN")
    before = shell.execute("SELECT count(*) FROM ssehub_entries").fetchall()
    for n in range(3000):
        hub.broadcast(str(n))
    follower.wait_for_last("2999")
    assert shell.execute("SELECT count(*) FROM ssehub_entries").fetchall() == before
    shell.execute("COMMIT")
    until(lambda: len(held(path)) < 100)


# Files that cannot be used


def refused(make_log: Callable[[], SQLiteLog], why: str) -> None:
    """Check that a log cannot be used: neither for sending nor for following."""
    hub = Hub(make_log())
    with pytest.raises(LogError, match=why):
        hub.broadcast("x")
    with pytest.raises(LogError, match=why):
        hub._log.start(lambda entry: 0, lambda end, commands: None)
    for stream in (hub.stream(), hub.stream()):
        assert b"ssehub.open" not in b"".join(stream)
    hub.close()


def test_a_file_that_cannot_be_used_is_a_log_error_and_is_used_when_that_is_over(path: Path, make: MakeHub) -> None:
    log = SQLiteLog(path.parent / "folder" / "hub.db", timeout=0.2)
    sender = Hub(log)
    with pytest.raises(LogError, match="there is no folder"):
        sender.broadcast("x")
    (path.parent / "folder").mkdir()
    sender.broadcast("x")
    sender.close()
    refused(lambda: SQLiteLog(path.parent / "folder"), "unable to open database file")
    (path.parent / "text.db").write_text("This is a text, and no database at all. " * 100)
    refused(lambda: SQLiteLog(path.parent / "text.db"), "file is not a database")
    refused(lambda: SQLiteLog(path.parent / "text.db" / "hub.db"), "there is no folder")
    loop = path.parent / "loop"
    loop.symlink_to(loop)
    refused(lambda: SQLiteLog(loop / "hub.db"), "folder")
    refused(lambda: SQLiteLog("/proc/hub.db"), "unable to open database file")


def test_a_damaged_file_is_a_log_error_until_it_is_replaced(path: Path, make: MakeHub) -> None:
    hub, sender = make(timeout=0.2), make(timeout=0.2)
    follower = Follower(hub)
    for n in range(500):
        sender.broadcast(f"{n} {'x' * 100}")
    follower.wait_for_last(f"499 {'x' * 100}")
    copy = backup(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damaged = path.read_bytes()
    path.with_name("damaged").write_bytes(damaged[:100] + b"\xff" * (len(damaged) - 100))
    os.replace(path.with_name("damaged"), path)
    with pytest.raises(LogError, match=r"malformed|not a database"):
        sender.broadcast("refused")
    until(lambda: hub.stats()["failing"])
    os.replace(copy, path)
    until(lambda: sends(sender, "after"))
    follower.wait_for_last("after")
    assert held(path)[-2:] == [f"499 {'x' * 100}", "after"]
    until(lambda: not hub.stats()["failing"])


def test_the_tables_of_another_version_are_left_alone(make: MakeHub, shell: sqlite3.Connection) -> None:
    shell.execute("UPDATE ssehub_head SET version = 2")
    with pytest.raises(LogError, match="created by another version of ssehub"):
        make().broadcast("x")
    shell.execute("DROP TABLE ssehub_head")
    shell.execute("CREATE TABLE ssehub_head (something TEXT)")
    with pytest.raises(LogError, match="created by another version of ssehub"):
        make().broadcast("x")
    assert shell.execute("SELECT count(*) FROM ssehub_entries").fetchone() == (1,)


NOBODY = """
import logging, os, sys
from ssehub import Hub, LogError, SQLiteLog
logging.disable()
for path in sys.argv[1:]:  # the first one is there so that all modules are imported
    hub = Hub(SQLiteLog(path, timeout=0.2))
    try:
        hub.broadcast("x")
    except LogError as error:
        print(error)
        print(any(b"ssehub.open" in chunk for chunk in hub.stream()))
    hub.close()
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become another user")
@pytest.mark.parametrize(
    ("folder", "file", "why"),
    [
        (0o755, 0o444, "readonly|unable"),
        (0o555, 0o666, "readonly|unable"),
        (0o700, 0o666, "cannot be used|unable|no folder"),
    ],
)
def test_without_the_right_to_write_messages_are_refused(folder: int, file: int, why: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        log = Hub(SQLiteLog(place / "hub.db"))
        log.broadcast("from root")
        log.close()
        (place / "hub.db").chmod(file)
        place.chmod(folder)
        said, opened = output(NOBODY, place / "other.db", place / "hub.db").splitlines()
        assert said.startswith("the message was not accepted: ") or "folder" in said
        assert re.search(why, said) and opened == "False"
        assert held(place / "hub.db") == ["from root"]


@pytest.mark.parametrize("place", ["", ":memory:", "file:hub.db", "hub\0.db"])
def test_a_path_that_is_no_path_is_refused_at_once(place: str) -> None:
    with pytest.raises(ValueError, match="path"):
        SQLiteLog(place)


@pytest.mark.parametrize("place", [None, 5, b"hub.db"])
def test_a_path_of_another_type_is_refused_at_once(place: object) -> None:
    with pytest.raises(TypeError):
        SQLiteLog(place)  # type: ignore[arg-type]


MOUNTS = rb"""/dev/vda / ext4 rw 0 0
proc /proc proc rw 0 0
server:/home /home nfs4 rw 0 0
/dev/vdb /home/ada ext4 rw 0 0
//server/share /mnt/a\040b\134c cifs rw 0 0
//server/share /mnt/""" + "ä".encode() + rb""" cifs rw 0 0
tmpfs /mnt/over tmpfs rw 0 0
server:/x /mnt/over nfs rw 0 0
broken
"""  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/srv", "ext4"), ("/home", "nfs4"), ("/home/bob/x", "nfs4"), ("/home/ada/x", "ext4"), ("/homes", "ext4"),
     ("/mnt/a b\\c/d", "cifs"), ("/mnt/ä", "cifs"), ("/mnt/over", "nfs"), ("/proc", "proc")],
)  # fmt: skip
def test_the_file_system_of_a_folder_is_found(folder: str, kind: str) -> None:
    assert file_system(Path(folder), MOUNTS) == kind


def test_a_file_on_a_network_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssehub.log.sqlite.place._mounts", lambda: b"server:/x / nfs4 rw 0 0\n")
    refused(lambda: SQLiteLog(path), "network file system .nfs4.")
    monkeypatch.setattr("ssehub.log.sqlite.place._mounts", lambda: b"")
    hub = Hub(SQLiteLog(path))
    hub.broadcast("unknown is allowed")
    hub.close()
