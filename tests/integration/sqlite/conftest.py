"""Fixtures for the tests of a SQLite log: a file, hubs on it, and a connection of another program."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssehub import Hub, SQLiteLog

MakeHub = Callable[..., Hub]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a file that does not exist yet."""
    return tmp_path / "hub.db"


@pytest.fixture
def make(path: Path, make_hub: MakeHub) -> MakeHub:
    """Return a function that makes hubs on one file, each as if in a process of its own."""
    return lambda **options: make_hub(SQLiteLog(path, **options), heartbeat=0.05)


@pytest.fixture
def shell(path: Path, make: MakeHub) -> Iterator[sqlite3.Connection]:
    """Return a connection of another program to the file, which exists."""
    make().broadcast("first")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        yield connection
