"""Background: exceptions do not end the thread. SingleFlight: waiting threads share the result of one call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from ssehub.background import Background
from ssehub.backoff import Backoff
from ssehub.single_flight import SingleFlight
from tests.streams import GUARD, until
from tests.threads import NoThreads, end_from_outside, thread_named

TROUBLE = "it fails", "it works again"


@pytest.fixture
def make() -> Iterator[Callable[..., Background]]:
    """Return a function that makes Background objects, which are ended after the test."""
    made: list[Background] = []

    def background(work: Callable[[], object], **options: object) -> Background:
        made.append(Background("ssehub-test", work, TROUBLE, **options))  # type: ignore[arg-type]
        return made[-1]

    yield background
    for one in made:
        one.end()
        assert one.join(GUARD)


def test_the_thread_continues_after_two_thousand_failures(
    make: Callable[..., Background], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ssehub.background._BACKOFF", Backoff(initial=1e-9, maximum=1e-6))
    count = 0

    def work() -> None:
        nonlocal count
        count += 1
        if count <= 2000:
            raise ConnectionError(f"number {count}")
        one.end()

    one = make(work, expected=(ConnectionError,))
    one.start()
    until(lambda: count > 2000 and one.failure is None)
    assert [record.getMessage() for record in caplog.records] == ["it fails: number 1", "it works again"]


def test_the_reason_of_a_failure_can_be_read_while_it_lasts(make: Callable[..., Background]) -> None:
    broken = threading.Event()
    broken.set()

    def work() -> None:
        if broken.is_set():
            raise ZeroDivisionError("why")

    one = make(lambda: (work(), one.wait(0.01)))
    one.start()
    assert str(until(lambda: one.failure)) == "why"
    broken.clear()
    until(lambda: one.failure is None)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_killed_thread_is_replaced(make: Callable[..., Background], error: type[BaseException]) -> None:
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())
        if len(threads) == 1:
            raise error
        one.wait(0.01)

    one = make(work)
    one.start()
    until(lambda: len(threads) > 1)
    assert threads[0] is not threads[1]


def test_a_thread_that_is_ended_from_outside_is_replaced(make: Callable[..., Background]) -> None:
    one = make(lambda: one.wait(0.01))
    one.start()
    before = end_from_outside("ssehub-test")
    until(lambda: not before.is_alive())
    assert thread_named("ssehub-test") is not before


def test_an_exception_in_a_log_handler_does_not_end_the_thread(make: Callable[..., Background]) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise SystemError("the handler is broken")

    handler, calls = Broken(), 0

    def work() -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ValueError("once more")
        one.wait(0.01)

    logger = logging.getLogger("ssehub")
    logger.addHandler(handler)
    try:
        one = make(work)
        one.start()
        until(lambda: calls >= 3)
    finally:
        logger.removeHandler(handler)


def test_if_no_thread_can_be_started_the_next_call_tries_again(
    make: Callable[..., Background], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_threads = NoThreads(monkeypatch, "ssehub-test")
    one = make(lambda: one.wait(0.01))
    with pytest.raises(RuntimeError, match="can't start"):
        one.start()
    assert "can't start" in str(one.failure)
    no_threads.names.clear()
    one.start()
    until(lambda: one.failure is None)


def test_the_thread_ends_without_work_and_starts_again_with_work(make: Callable[..., Background]) -> None:
    work: list[int] = []
    done: list[int] = []
    one = make(lambda: done.append(work.pop()), is_done=lambda: not work)
    for n in range(200):
        work.append(n)
        one.start()
    until(lambda: len(done) == 200)
    until(lambda: "ssehub-test" not in [thread.name for thread in threading.enumerate()])


def in_flight(flight: SingleFlight[int], call: Callable[[], int], number: int) -> tuple[list[int], list[Exception]]:
    """Ask from some threads while the call runs in one of them. Return their results and errors."""
    begun, go = threading.Event(), threading.Event()
    results: list[int] = []
    errors: list[Exception] = []

    def slow() -> int:
        begun.set()
        go.wait(GUARD)
        return call()

    def ask() -> None:
        try:
            results.append(flight.do(slow))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(number)]
    for thread in threads:
        thread.start()
    begun.wait(GUARD)
    until(lambda: flight._flight and len(flight._flight.landed._cond._waiters) == number - 1)  # type: ignore[attr-defined]
    go.set()
    for thread in threads:
        thread.join()
    return results, errors


def test_waiting_threads_share_the_result_of_one_call() -> None:
    calls: list[int] = []

    def call() -> int:
        calls.append(1)
        return len(calls)

    flight: SingleFlight[int] = SingleFlight()
    assert in_flight(flight, call, 5) == ([1] * 5, [])
    assert flight.do(call) == 2


def test_waiting_threads_share_the_error_and_the_next_call_is_a_new_one() -> None:
    def call() -> int:
        raise OSError("nobody answers")

    flight: SingleFlight[int] = SingleFlight()
    results, errors = in_flight(flight, call, 3)
    assert results == [] and [str(error) for error in errors] == ["nobody answers"] * 3
    assert sorted(type(error).__name__ for error in errors) == ["LogError", "LogError", "OSError"]
    assert flight.do(lambda: 1) == 1
