"""The example countdown: an end, and a way back to the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.example_apps import EXAMPLES, imported
from tests.servers import ROOT
from tests.streams import GUARD, Stream, call

ALL_TEN = [("timestamp", str(number)) for number in range(1, 11)] + [("end", "11")]


@pytest.fixture
def countdown() -> Iterator[ModuleType]:
    with imported("countdown") as module:
        module.PAUSE = 0.01
        yield module


@pytest.fixture
def port(countdown: ModuleType, site: Callable[[Any], Any]) -> int:
    number: int = site(countdown.app).port
    return number


def heard(port: int, **headers: str) -> list[tuple[str, str | None]]:
    """Follow to the end, and return each event's type and id."""
    stream = Stream(port, "/sse", headers)
    events = [(event.event, event.id) for event in stream.rest()]
    stream.close()
    return events


def test_ten_timestamps_come_and_then_the_end(port: int) -> None:
    assert heard(port) == ALL_TEN


def test_who_comes_back_gets_the_rest_only(port: int) -> None:
    for last in ("1", "7", "10"):
        assert heard(port, **{"Last-Event-ID": last}) == ALL_TEN[int(last) :]


def test_who_comes_with_no_number_of_ours_starts_at_the_beginning(countdown: ModuleType, port: int) -> None:
    countdown.PAUSE = 0
    for last in ("", "-1", "seven", "1 0", "٣", "9" * 5000):
        assert heard(port, **{"Last-Event-ID": last.encode().decode("latin-1")}) == ALL_TEN, last


def test_who_has_had_the_end_is_told_not_to_come_back(port: int) -> None:
    assert call(port, "GET", "/sse", **{"Last-Event-ID": "11"}) == (204, b"")


def script(name: str, folder: Path, port: int, old: str, new: str) -> list[str]:
    """Run a script of the example against a port, with one thing in it replaced, and return the lines it prints."""
    code = (EXAMPLES / "countdown" / name).read_text()
    assert old in code
    (folder / name).write_text(code.replace(":8000", f":{port}").replace(old, new))
    done = subprocess.run(
        [sys.executable, name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=3 * GUARD,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_the_slow_script_reads_to_the_end_and_stops(port: int, tmp_path: Path) -> None:
    lines = script("slow.py", tmp_path, port, "sleep(2)", "sleep(0.03)")
    assert [line.split()[0] for line in lines] == [id for _, id in ALL_TEN]
    assert lines[-1] == "11 end end flag"


def test_the_other_script_is_cancelled_in_the_midst(countdown: ModuleType, port: int, tmp_path: Path) -> None:
    countdown.PAUSE = 0.15
    lines = script("cancel.py", tmp_path, port, "Timer(5", "Timer(0.4")
    assert 1 <= len(lines) < 11
    assert lines[-1] in (f"cancelled at {len(lines) - 1}", "cancelled at the start")


def test_cut_off_again_and_again_a_client_loses_and_repeats_nothing(port: int) -> None:
    from ssehub import Client

    got: list[str] = []
    with Client(f"http://127.0.0.1:{port}/sse", reconnect_delay=0.001) as client:
        for message in client:
            got.append(message.id or "")
            if len(got) in (3, 4, 8):
                client.restart()
            if message.event == "end":
                break
    assert got == [id for _, id in ALL_TEN]
    assert client.last_event_id == "11"
