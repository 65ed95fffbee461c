"""Backoff: the wait before the next attempt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssehub import Backoff


@given(st.floats(0, 1e12), st.integers(0, 10**6), st.floats(0, 1))
def test_a_wait_is_between_the_reconnection_time_and_the_maximum(base: float, failures: int, jitter: float) -> None:
    delay = Backoff(jitter=jitter).delay(failures, base)
    assert min(base, 86400.0) <= delay <= max(60.0, min(base, 86400.0) * 1.1)


def test_after_a_good_connection_the_wait_is_the_reconnection_time_plus_up_to_a_tenth() -> None:
    waits = [Backoff().delay(0, 2.0) for _ in range(1000)]
    assert 2.0 <= min(waits) < 2.05 and 2.15 < max(waits) <= 2.2
    assert Backoff().delay(0, 0.0) == 0.0


def test_failures_double_the_wait_up_to_the_maximum() -> None:
    plain = Backoff(initial=1, factor=2, maximum=60, jitter=0)
    assert [plain.delay(n, 0.0) for n in range(1, 8)] == [2, 4, 8, 16, 32, 60, 60]
    assert [plain.delay(n, 3.0) for n in range(1, 6)] == [6, 12, 24, 48, 60]
    assert plain.delay(1, 300.0) == 300.0


def test_jitter_shortens_a_wait_by_up_to_its_share() -> None:
    waits = [Backoff(jitter=0.5).delay(3, 0.0) for _ in range(1000)]
    assert 4.0 <= min(waits) < 4.5 and 7.5 < max(waits) <= 8.0


@pytest.mark.parametrize(
    "options",
    [{"initial": -1}, {"factor": 0.5}, {"maximum": -1}, {"jitter": 2}, {"jitter": -1}, {"initial": float("nan")},
     {"maximum": float("inf")}, {"reset_after": -1}],
)  # fmt: skip
def test_a_number_out_of_range_is_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Backoff(**options)


def test_a_backoff_is_immutable_and_compares_by_value() -> None:
    assert Backoff(1) == Backoff() and hash(Backoff()) == hash(Backoff())
    with pytest.raises(AttributeError):
        Backoff().initial = 2  # type: ignore[misc]
