"""Hook: an exception in a callback does not reach the caller."""

from __future__ import annotations

import logging
import threading

import pytest

from ssehub import Hub
from ssehub.hooks import Hook


def test_callbacks_run_in_order_and_can_be_removed() -> None:
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


def test_a_failing_callback_is_logged_and_the_next_one_is_called(caplog: pytest.LogCaptureFixture) -> None:
    hook: Hook[[]] = Hook("on_test")
    seen: list[int] = []
    hook(lambda: 1 / 0)
    hook(lambda: seen.append(1))
    with caplog.at_level(logging.ERROR, "ssehub"):
        hook.fire()
    assert seen == [1] and "ZeroDivisionError" in caplog.text


def test_a_callback_that_cannot_be_called_is_rejected() -> None:
    with pytest.raises(TypeError, match="on_test"):
        Hook("on_test")(7)  # type: ignore[type-var]


def test_a_callback_that_sends_while_the_hub_closes_is_not_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    hub.on_disconnect(lambda connection: hub.broadcast(f"{connection.client_id} has left"))
    stream = hub.stream()
    next(stream)
    closing = threading.Thread(target=hub.close)
    closing.start()
    assert b"retry" in b"".join(stream)
    closing.join()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
