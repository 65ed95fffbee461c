"""Streams on every kind of server and in every way to serve them, each in its own process, over real sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.matrix import KINDS, NO_SOCKET, THREADS, Served, served
from tests.streams import Stream, call, until

STREAMS, MESSAGES = 10, 10
CASES = [(kind, detach, "wsgi") for kind in KINDS for detach in ("None", "True", "False")]
CASES += [(kind, "None", framework) for framework in ("flask", "django") for kind in ("sync", "gthread")]


@pytest.fixture(scope="module", params=CASES, ids=" ".join)
def here(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    kind, detach, framework = request.param
    with served(kind, tmp_path_factory.mktemp("served"), detach, FRAMEWORK=framework) as server:
        yield server


def count(here: Served) -> int:
    """Return how many streams the server can hold at a time, ten at the most."""
    return 1 if here.is_busy else STREAMS


def test_first_bytes_come_at_once_and_each_message_once_and_in_order(here: Served) -> None:
    here.nobody()
    streams = here.open(count(here))
    for number in range(MESSAGES // 2):
        here.send(str(number))
    for stream in streams:
        assert stream.data(MESSAGES // 2) == [str(number) for number in range(MESSAGES // 2)]
    for number in range(MESSAGES // 2, MESSAGES):
        here.send(str(number))
        for stream in streams:
            assert stream.data(1) == [str(number)]
    here.send("end")
    for stream in streams:
        assert stream.data(1) == ["end"]
        stream.close()


def test_streams_are_served_in_the_way_that_is_meant(here: Served) -> None:
    here.nobody()
    streams = here.open(count(here))
    numbers = here.stats()
    assert numbers["connections"] == len(streams)
    assert numbers["taken_over"] == (0 if here.way == "thread" else len(streams))
    assert numbers["detached"] == (len(streams) if here.way == "detached" else 0)
    reasons = numbers["not_taken"]
    assert list(reasons) == ([NO_SOCKET] if here.way == "thread" and here.detach != "False" else [])
    for stream in streams:
        stream.close()


def test_an_ordinary_request_is_answered_while_there_are_streams(here: Served) -> None:
    here.nobody()
    streams = here.open(count(here))
    if not here.is_busy:
        for _ in range(5):
            assert call(here.port, "GET", "/other") == (200, b"other")
        assert call(here.port, "POST", "/send?data=hello") == (200, b"sent")
        for stream in streams:
            assert stream.data(1) == ["hello"]
    for stream in streams:
        stream.close()
    until(lambda: call(here.port, "GET", "/other") == (200, b"other"))


def test_more_streams_than_threads_are_open_at_a_time_if_they_are_detached(here: Served) -> None:
    if here.way != "detached":
        pytest.skip("they hold threads")
    here.nobody()
    streams = here.open(2 * THREADS)
    assert call(here.port, "POST", "/send?data=hello") == (200, b"sent")
    for stream in streams:
        assert stream.data(1) == ["hello"]
        stream.close()


def test_a_client_that_leaves_is_noticed_in_less_than_a_second(here: Served) -> None:
    here.nobody()
    if not KINDS[here.kind].shows:
        pytest.skip("the server does not show the client's socket: it takes some heartbeats")
    times = []
    for leave in (Stream.close, Stream.reset) * 2:  # a machine that is busy may keep us waiting now and then
        streams = here.open(min(2, count(here)))
        before = here.stats()["connections"]
        assert before == len(streams)
        leave(streams[0])
        left = time.monotonic()
        until(lambda before=before: here.stats()["connections"] == before - 1, "the hang-up to be noticed")
        times.append(time.monotonic() - left)
        for stream in streams[1:]:
            here.send("still")
            assert stream.data(1) == ["still"]
            stream.close()
        here.nobody()
    assert min(times[::2]) < 1 and min(times[1::2]) < 1
    assert here.stats()["hang_ups"] >= len(times)


def test_two_hundred_streams_that_came_and_went_leave_nothing(here: Served) -> None:
    here.nobody()

    def come_and_go() -> None:
        streams = here.open(1 if here.is_busy else 20)
        for number, stream in enumerate(streams):
            stream.reset() if number % 2 else stream.close()
        here.nobody()

    for _ in range(2):
        come_and_go()
    until(lambda: call(here.port, "GET", "/other") == (200, b"other"))
    descriptors, threads = here.descriptors(), here.threads()
    for _ in range(10):
        come_and_go()
    until(lambda: len(here.descriptors()) <= len(descriptors) + 1, "the descriptors to be closed")
    limit = max(len(threads), THREADS if KINDS[here.kind].keeps else 0) + 3
    until(lambda: len(here.threads()) <= limit, "the threads to be gone")
    numbers = here.stats()
    assert (numbers["connections"], numbers["taken_over"], numbers["detached"]) == (0, 0, 0)
