"""The storm on each log that several processes share."""

from __future__ import annotations

import secrets

import pytest

from benchmarks import storm


@pytest.mark.parametrize(
    ("log", "worker"),
    [
        pytest.param("redis", "sync", marks=pytest.mark.redis),
        ("sqlite", "sync"),
        pytest.param("postgresql", "sync", marks=pytest.mark.postgres),
    ],
)
def test_the_storm(log: str, worker: str) -> None:
    seed = secrets.randbits(32)
    counts = storm.run(log, seconds=15, clients=60, publishers=4, seed=seed, worker=worker)
    print(seed, counts)
    assert counts["duplicates"] == counts["lost without report"] == 0
    assert counts["accepted"] > 500 and counts["delivered"] > 2500
    assert counts["gaps"] > 5 or log == "postgresql"  # which is rolled back less often
