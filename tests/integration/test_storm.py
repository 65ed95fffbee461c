"""The storm on each log that several processes share, once with detached streams and once with parked ones."""

from __future__ import annotations

import secrets

import pytest

from benchmarks import storm


@pytest.mark.parametrize(("log", "worker"), [("redis", "sync"), ("redis", "gthread"), ("sqlite", "sync")])
def test_the_storm(log: str, worker: str) -> None:
    seed = secrets.randbits(32)
    counts = storm.run(log, seconds=40, clients=60, publishers=4, seed=seed, worker=worker)
    print(seed, counts)
    assert counts["duplicates"] == counts["lost without report"] == 0
    assert counts["accepted"] > 1000 and counts["delivered"] > 10_000 and counts["gaps"] > 10
