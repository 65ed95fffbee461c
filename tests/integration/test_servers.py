"""The same promises on every server, each in its own process, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import HIDING, SHOWING, running
from tests.streams import Stream, call, until

#: Where the socket is shown no heartbeat may help; elsewhere it is what notices.
HEARTBEATS = dict.fromkeys(SHOWING, "3600") | dict.fromkeys(HIDING, "0.2")


@pytest.fixture(scope="module", params=[*SHOWING, *HIDING])
def server(request: pytest.FixtureRequest) -> Iterator[int]:
    with running(request.param, HEARTBEAT=HEARTBEATS[request.param]) as port:
        yield port


def connections(port: int) -> int:
    return int(call(port, "GET", "/stats")[1]["stats"]["connections"])


def test_headers_first_bytes_and_each_message_arrive_at_once(server: int) -> None:
    stream = Stream(server, "/events?client_id=ada")
    assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert stream.opened()["client_id"] == "ada"
    for text in ("one", "two\nlines", "x" * 100_000):
        assert call(server, "POST", "/send", {"data": text, "client_id": "ada"})[0] == 200
        assert stream.message().data == text
    stream.close()


def test_a_client_that_leaves_is_noticed(server: int) -> None:
    until(lambda: connections(server) == 0)
    staying, leaving, resetting = (Stream(server, "/events") for _ in range(3))
    for stream in (staying, leaving, resetting):
        stream.opened()
    assert connections(server) == 3
    leaving.close()
    until(lambda: connections(server) == 2, "the hang-up to be noticed")
    resetting.reset()
    until(lambda: connections(server) == 1, "the reset to be noticed")
    call(server, "POST", "/send", {"data": "still here", "broadcast": "true"})
    assert staying.message().data == "still here"
    staying.close()


def test_head_is_answered_without_a_stream(server: int) -> None:
    before = call(server, "GET", "/stats")[1]["stats"]["opened"]
    assert call(server, "HEAD", "/events") == (200, b"")
    assert call(server, "GET", "/stats")[1]["stats"]["opened"] == before


def test_a_client_that_comes_back_misses_nothing(server: int) -> None:
    stream = Stream(server, "/events")
    stream.opened()
    call(server, "POST", "/burst?n=50")
    first = [stream.message() for _ in range(20)]
    stream.close()
    call(server, "POST", "/burst?from=50&n=50")
    back = Stream(server, "/events", {"Last-Event-ID": first[-1].id or ""})
    numbers = [int((text or "").split()[0]) for text in [one.data for one in first] + back.data(80)]
    assert numbers == list(range(100))
    back.close()


def test_closing_the_hub_ends_all_streams_and_comes_last(server: int) -> None:
    streams = [Stream(server, "/events") for _ in range(10)]
    for stream in streams:
        stream.opened()
    call(server, "POST", "/send", {"data": "bye", "broadcast": "true"})
    call(server, "POST", "/close")
    for stream in streams:
        assert [event.data for event in stream.rest()] in (["bye"], ["bye", "."])
        assert 2000 <= (stream.decoder.reconnection_time or 0) <= 4000
        stream.close()
    late = Stream(server, "/events")
    assert late.response.status == 200 and late.rest() == []
    late.close()
