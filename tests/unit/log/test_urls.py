"""URLs of logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ssehub import Hub, Log, MemoryLog, PostgresLog, RedisLog, SQLiteLog
from ssehub.log.urls import open_log


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory:", MemoryLog),
        ("memory://", MemoryLog),
        ("sqlite:hub.db", SQLiteLog),
        ("SQLite:hub.db", SQLiteLog),
        ("postgresql://me:s3cret@localhost/db", PostgresLog),
        ("postgres://localhost/db", PostgresLog),
        ("redis://localhost:6379/0", RedisLog),
        ("rediss://localhost", RedisLog),
        ("unix:///run/redis.sock", RedisLog),
        ("redis+cluster://localhost:7000", RedisLog),
    ],
)
def test_each_scheme_makes_its_log(url: str, kind: type[Log]) -> None:
    assert type(open_log(url, size=7)) is kind
    assert type(Hub(url)._log) is kind


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:hub.db", "{cwd}/hub.db"),
        ("sqlite:///hub.db", "{cwd}/hub.db"),
        ("sqlite:data/my hub.db", "{cwd}/data/my hub.db"),
        ("sqlite:/srv/hub.db", "/srv/hub.db"),
        ("sqlite:////srv/hub.db", "/srv/hub.db"),
    ],
)
def test_a_sqlite_path_is_relative_or_absolute(url: str, path: str) -> None:
    log = open_log(url)
    assert isinstance(log, SQLiteLog) and log._path == path.format(cwd=Path.cwd())


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        ("mysql://me:s3cret@localhost", {}, "scheme 'mysql'; the logs are memory:, sqlite:FILE"),
        ("hub.db", {}, "begins with a scheme, as in sqlite:hub\\.db for a file; the logs are"),
        ("", {}, "begins with a scheme"),
        ("s3cret@localhost:6379", {}, "begins with a scheme"),
        ("memory:x", {}, "memory:"),
        ("sqlite:", {}, "needs a file"),
        ("sqlite:///", {}, "needs a file"),
        ("sqlite://srv/hub.db", {}, "has no host"),
        ("sqlite::memory:", {}, "MemoryLog"),
        ("sqlite:hub.db?size=5", {}, "has no options"),
        ("postgresql+psycopg://me:s3cret@localhost/db", {}, "leave out"),
        ("sqlite:hub.db", {"partitions": 4}, "a SQLiteLog has no option partitions"),
        ("memory:", {"name": "x"}, "a MemoryLog has no option name"),
        ("redis://localhost", {"zone_size": 4, "ttl": 3}, "a RedisLog has no option ttl, zone_size"),
    ],
)
def test_a_wrong_url_or_option_is_refused_without_its_secrets(url: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text) as raised:
        open_log(url, **options)
    assert "s3cret" not in str(raised.value)


def test_a_url_is_no_path_of_a_file() -> None:
    with pytest.raises(ValueError, match=r"write Hub\('sqlite:hub\.db'\)"):
        SQLiteLog("sqlite:hub.db")


def test_what_is_no_url_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="must be a str, not PosixPath"):
        open_log(Path("hub.db"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"'sqlite:hub\.db', not PosixPath"):
        Hub(Path("hub.db"))  # type: ignore[arg-type]
