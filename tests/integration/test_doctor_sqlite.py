"""The doctor's checks of a log in a SQLite file: each fault made on purpose, and none found without a fault."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssehub import Hub, SQLiteLog
from ssehub.service import create_app
from ssehub.tools.doctor import Finding, Target, examine
from ssehub.tools.doctor.checks import log, sqlite
from tests.conftest import Site
from tests.servers import ROOT
from tests.streams import until

Found = dict[str, Finding]


@contextlib.contextmanager
def followed(file: Path) -> Iterator[Path]:
    """Follow a log in a file."""
    with contextlib.closing(SQLiteLog(file)) as one:
        one.start(lambda entry: 0, lambda end, commands: None)
        until(lambda: list(file.parent.glob("hub.db-followers/*")), "the follower to listen")
        yield file


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Return the path of a file with a log that a process follows."""
    with followed(tmp_path / "hub.db") as file:
        yield file


def look(path: Path, epochs: frozenset[tuple[int, int]] | None = None, **options: Any) -> Found:
    target = Target("http://127.0.0.1/events", log=f"sqlite:{path}", **options)
    return {finding.check: finding for finding in log.ask(target, epochs)}


def verdicts(found: Found) -> dict[str, str]:
    return {check.removeprefix("sqlite "): finding.verdict for check, finding in found.items()}


def epoch_of(path: Path) -> int:
    with contextlib.closing(SQLiteLog(path)) as one:
        return one.cursor().epoch


def test_a_file_as_it_should_be_is_told_so_and_left_as_it_was(tmp_path: Path, site: Callable[[Any], Site]) -> None:
    file = tmp_path / "hub.db"
    with contextlib.closing(Hub(f"sqlite:{file}", heartbeat=0.2)) as hub:
        url = f"http://127.0.0.1:{site(create_app(hub, public=False)).port}/events"
        hub.broadcast("x")
        found = {one.check: one for one in examine(Target(url, log=f"sqlite:{file}", time=3.0, streams=2))}
        mine = {check: one for check, one in found.items() if check.startswith("sqlite")}
        assert len(mine) == 6 and {one.verdict for one in mine.values()} == {"ok"}, mine
        assert "the stream reads it" in mine["sqlite log"].seen
        other = tmp_path / "other.db"
        epoch_of(other)
        wrong = {one.check: one for one in examine(Target(url, log=f"sqlite:{other}", time=1.0, streams=1))}
        assert wrong["sqlite log"].verdict == "FAIL" and "another one" in wrong["sqlite log"].seen


def test_without_a_stream_the_log_is_checked_and_nothing_is_guessed(path: Path) -> None:
    assert verdicts(look(path)) == {
        "file": "ok", "mode": "ok", "disk": "ok", "rights": "ok", "followers": "ok", "log": "skip"
    }  # fmt: skip
    assert look(path, frozenset([(0, epoch_of(path))]))["sqlite log"].verdict == "ok"
    assert look(path, frozenset([(0, 1)]))["sqlite log"].verdict == "FAIL"


def test_a_missing_file_is_told_with_its_whole_path_and_not_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = look(Path("none.db"))
    assert verdicts(found) == {"file": "FAIL"} and str(tmp_path / "none.db") in found["sqlite file"].seen
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    file.write_bytes(b"a text" * 1000)
    found = look(file)
    assert found["sqlite file"].verdict == "FAIL" and "not a database" in found["sqlite file"].seen


def test_a_file_without_this_log_is_told_with_the_logs_that_it_has(path: Path, tmp_path: Path) -> None:
    found = look(path, log_name="shop")
    assert found["sqlite log"].verdict == "FAIL" and found["sqlite log"].fix == "--name ssehub"
    empty = tmp_path / "empty.db"
    empty.touch()
    found = look(empty)
    assert found["sqlite log"].verdict == "FAIL" and "none" in found["sqlite log"].seen
    assert {found["sqlite mode"].verdict, found["sqlite followers"].verdict} == {"FAIL", "warn"}


def test_another_version_of_the_tables_and_another_size_are_told(path: Path) -> None:
    with contextlib.closing(SQLiteLog(path)) as one:
        hub = Hub(one)
        for n in range(20):
            hub.broadcast(str(n))
        hub.close()
    assert look(path, log_size=20)["sqlite log"].verdict == "skip"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO ssehub_entries (number, previous, nonce, sent, body)"
            " SELECT number + 1000 * n, previous, nonce, sent, body FROM ssehub_entries,"
            " (WITH RECURSIVE s(n) AS (SELECT 1 UNION SELECT n + 1 FROM s WHERE n < 60) SELECT n FROM s)"
        )
        assert look(path, log_size=20)["sqlite log"].verdict == "warn"
        connection.execute("UPDATE ssehub_head SET version = 99")
        found = look(path)
        connection.execute("UPDATE ssehub_head SET version = 1")
    assert found["sqlite log"].verdict == "FAIL" and "99" in found["sqlite log"].seen


def test_a_lock_that_is_held_for_long_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_TIMEOUT", 0.1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        found = look(path)
        connection.execute("ROLLBACK")
    assert found["sqlite rights"].verdict == "FAIL" and "write lock" in found["sqlite rights"].seen


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_may_not_write_is_told() -> None:
    with tempfile.TemporaryDirectory() as folder:  # not in pytest's folder, which other users cannot enter
        os.chmod(folder, 0o755)
        with followed(Path(folder) / "hub.db") as path:
            for file in Path(folder).glob("hub.db*"):
                if file.is_file():
                    file.chmod(0o644)
            found = found_by_another_user(path)
    assert "'sqlite rights': 'FAIL'" in found and "'sqlite followers': 'warn'" in found


def found_by_another_user(path: Path) -> str:
    code = (
        "import os, sys; from ssehub.tools.doctor.checks import sqlite; from ssehub.tools.doctor import Target;"
        " os.setuid(65534);"
        " print({one.check: one.verdict for one in sqlite.ask(Target('http://x/', log=sys.argv[1]), None)})"
    )
    command = [sys.executable, "-c", code, f"sqlite:{path}"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    return done.stdout


def test_an_unknown_kind_of_log_is_told_and_one_without_checks_is_skipped() -> None:
    for url, verdict in (("mysql://localhost/x", "FAIL"), ("memory:", "skip")):
        (finding,) = log.ask(Target("http://127.0.0.1/events", log=url), None)
        assert (finding.check, finding.verdict) == ("log", verdict)
