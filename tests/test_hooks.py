"""Hook: callbacks that cannot break their caller."""

from __future__ import annotations

import logging

import pytest

from ssehub.hooks import Hook


def test_callbacks_run_in_order_and_can_be_taken_out() -> None:
    hook: Hook[[int]] = Hook("on_test")
    seen: list[str] = []

    @hook
    def first(n: int) -> None:
        seen.append(f"first {n}")

    second = hook(lambda n: seen.append(f"second {n}"))
    hook.fire(1)
    hook.remove(second)
    hook.fire(2)
    assert seen == ["first 1", "second 1", "first 2"]
    with pytest.raises(ValueError, match="on_test"):
        hook.remove(second)


def test_a_callback_that_fails_is_logged_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    hook: Hook[[]] = Hook("on_test")
    seen: list[int] = []
    hook(lambda: 1 / 0)
    hook(lambda: seen.append(1))
    with caplog.at_level(logging.ERROR, "ssehub"):
        hook.fire()
    assert seen == [1] and "ZeroDivisionError" in caplog.text


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="on_test"):
        Hook("on_test")(7)  # type: ignore[type-var]
