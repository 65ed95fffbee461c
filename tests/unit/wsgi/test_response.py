"""Responses: headers, methods, last event ids, streams without a hub."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.test import create_environ
from werkzeug.wrappers import Request

from ssehub import Hub, Message, event_stream, last_event_id
from tests.conftest import Site
from tests.streams import GUARD, Stream, call, until

MakeHub = Callable[..., Hub]
Serve = Callable[[Any], Site]


def test_the_headers_are_these_and_those_of_the_application(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub(headers={"Access-Control-Allow-Origin": "https://example.org"})
    stream = site(lambda environ, start: hub.connect(environ)(environ, start)).stream()
    servers_own = {"server", "date", "connection", "transfer-encoding"}
    assert {name.lower(): value for name, value in stream.response.getheaders() if name.lower() not in servers_own} == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache, no-transform",
        "x-accel-buffering": "no",
        "x-content-type-options": "nosniff",
        "access-control-allow-origin": "https://example.org",
    }
    stream.close()


def test_head_gets_the_headers_alone_and_registers_nothing(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub()
    here = site(lambda environ, start: hub.connect(environ)(environ, start))
    status, body = call(here.port, "HEAD", "/")
    assert (status, body) == (200, b"") and hub.stats()["opened"] == 0


def test_a_stream_and_its_messages_arrive_at_once(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub(heartbeat=3600)
    stream = site(lambda environ, start: hub.connect(environ, client_id="ada")(environ, start)).stream()
    assert stream.opened()["client_id"] == "ada"
    for n in range(3):
        hub.broadcast(str(n))
        assert stream.message().data == str(n)
    stream.close()
    until(lambda: not hub.connections(), "the hang-up is noticed without a heartbeat")
    assert hub.stats()["hang_ups"] == 1


def test_a_browser_resumes_and_the_header_overrides_the_query(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub()
    here = site(lambda environ, start: hub.connect(environ)(environ, start))
    ids = [hub.broadcast(str(n)).id for n in range(4)]
    for path, headers, expected in (
        ("/", {"Last-Event-ID": ids[2]}, ["3"]),
        (f"/?lastEventId={ids[1]}", {}, ["2", "3"]),
        (f"/?last_event_id={ids[0]}", {}, ["1", "2", "3"]),
        (f"/?lastEventId={ids[0]}", {"Last-Event-ID": ids[2]}, ["3"]),
    ):
        stream = here.stream(path, **headers)
        assert stream.data(len(expected)) == expected
        stream.close()


def test_last_event_ids_are_decoded_as_utf8() -> None:
    raw = "ключ ☃".encode().decode("latin-1")
    environ = create_environ(headers={"Last-Event-ID": raw})
    assert last_event_id(environ) == last_event_id(Request(environ)) == "ключ ☃"
    assert last_event_id(create_environ(query_string={"lastEventId": "ключ"})) == "ключ"
    assert last_event_id(create_environ()) == ""
    assert last_event_id({}) == ""
    bad = {"HTTP_LAST_EVENT_ID": "\xff\xfe"}
    assert last_event_id(bad) == "\ufffd\ufffd"


@pytest.mark.parametrize("wrong", [None, "environ", 7, object()])
def test_an_argument_that_is_not_a_request_is_refused(make_hub: MakeHub, wrong: Any) -> None:
    with pytest.raises(TypeError, match="environ"):
        make_hub().connect(wrong)


def test_a_full_hub_can_answer_with_503(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub(max_connections=1, refuse_with=503)
    here = site(lambda environ, start: hub.connect(environ)(environ, start))
    stream = here.stream()
    stream.opened()
    refused = Stream(here.port)
    assert (refused.response.status, refused.response.headers["Retry-After"]) == (503, "10")
    refused.close()
    stream.close()


def test_a_full_hub_answers_a_browser_with_a_stream_that_ends(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub(max_connections=1)
    here = site(lambda environ, start: hub.connect(environ)(environ, start))
    stream = here.stream()
    stream.opened()
    refused = here.stream()
    assert refused.response.status == 200 and refused.rest() == []
    assert (refused.decoder.reconnection_time or 0) >= 10_000
    for one in (stream, refused):
        one.close()


# Without a hub


def test_an_event_stream_sends_its_headers_before_its_first_message(site: Serve) -> None:
    go = threading.Event()

    def tokens() -> Iterator[Message | str]:
        assert go.wait(GUARD)
        yield "Hel"
        yield Message("lo", "token", id="2")

    stream = site(event_stream(tokens())).stream()
    assert stream.response.status == 200
    go.set()
    assert [(event.event, event.data) for event in stream.rest()] == [("message", "Hel"), ("token", "lo")]
    stream.close()


def test_a_producer_is_closed_when_its_client_disconnects(site: Serve) -> None:
    closed = threading.Event()

    def endless() -> Iterator[str]:
        try:
            while True:
                yield "more"
                time.sleep(0.001)
        finally:
            closed.set()

    stream = site(event_stream(endless())).stream()
    assert stream.data(3) == ["more"] * 3
    stream.close()
    assert closed.wait(GUARD)


def test_an_invalid_message_ends_the_stream_after_the_earlier_ones() -> None:
    response = event_stream(["fine", {"a": [1, 2.5]}, b"bytes"])
    body = iter(response.response)
    assert [next(body), next(body), next(body)][1:] == [b"data: fine\n\n", b'data: {"a":[1,2.5]}\n\n']
    with pytest.raises(TypeError, match="bytes is not JSON serializable: decode"):
        next(body)


@pytest.mark.parametrize("wrong", ["text", b"text", Message("x"), 5, None])
def test_a_single_text_is_not_an_iterable_of_texts(wrong: Any) -> None:
    with pytest.raises(TypeError, match="such as a list"):
        event_stream(wrong)


def test_a_streams_headers_are_checked_too() -> None:
    with pytest.raises(ValueError, match="Connection"):
        event_stream([], headers={"Connection": "close"})


def generators() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "ssehub-iterator"]


def test_a_silent_generator_has_heartbeats_and_a_client_that_leaves_is_noticed(site: Serve) -> None:
    go, closed = threading.Event(), threading.Event()

    def thinking() -> Iterator[str]:
        try:
            assert go.wait(GUARD)
            yield "first"
            yield "second"
            go.clear()
            assert go.wait(GUARD)
            yield "third"
        finally:
            closed.set()

    stream = site(event_stream(thinking(), heartbeat=0.01)).stream()
    while stream.raw.count(b":\n\n") < 3:
        stream.raw += stream.response.read1(100)
    go.set()
    assert stream.data(2) == ["first", "second"]
    beats = stream.raw.count(b":\n\n")
    while stream.raw.count(b":\n\n") < beats + 3:
        stream.raw += stream.response.read1(100)
    stream.reset()
    assert not closed.is_set()
    go.set()  # its next item closes the generator
    assert closed.wait(GUARD)


def test_a_generator_runs_in_one_thread_with_the_context_of_the_server_and_never_ahead(site: Serve) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    threads: list[threading.Thread] = []

    def items() -> Iterator[str]:
        threads.append(threading.current_thread())
        yield variable.get()
        try:
            variable.set("changed")
            while True:
                threads.append(threading.current_thread())
                yield variable.get()
        finally:
            threads.append(threading.current_thread())

    variable.set("of the server")
    body: Any = event_stream(items()).response
    assert [next(body) for _ in range(4)][1:] == [b"data: of the server\n\n"] + [b"data: changed\n\n"] * 2
    assert len(threads) == 3
    body.close()
    assert len(threads) == 4 and len(set(threads)) == 1 and threads[0].name == "ssehub-iterator"
    assert variable.get() == "of the server" and not generators()


def test_a_list_and_a_generator_that_has_begun_and_no_heartbeat_need_no_thread() -> None:
    def items() -> Iterator[str]:
        yield "begun"
        yield threading.current_thread().name

    begun = items()
    next(begun)
    own = threading.current_thread().name.encode()
    assert b"data: %s\n\n" % own in list(event_stream(begun).response)  # type: ignore[comparison-overlap]
    assert b"data: %s\n\n" % own in list(event_stream(items(), heartbeat=None).response)  # type: ignore[comparison-overlap]
    body: Any = event_stream(["a", "b"]).response
    next(body), next(body)
    assert not generators()


def test_the_error_of_a_generator_is_raised_where_the_server_sees_it(caplog: pytest.LogCaptureFixture) -> None:
    def items() -> Iterator[str]:
        try:
            yield "a"
            raise OSError("no model")
        finally:
            raise RuntimeError("while it is closed")

    with pytest.raises(RuntimeError, match="while it is closed"):
        list(event_stream(items()).response)

    class Failing:
        def __iter__(self) -> Iterator[str]:
            return self  # type: ignore[return-value]

        def __next__(self) -> str:
            return "a"

        def close(self) -> None:
            raise OSError("while it is closed")

    body: Any = event_stream(Failing()).response  # type: ignore[arg-type]
    next(body), next(body)
    body.close()
    assert "a generator could not be closed" in caplog.text


@pytest.mark.parametrize("heartbeat", [0, -1, "15", float("inf")])
def test_a_heartbeat_is_a_positive_number(heartbeat: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="heartbeat"):
        event_stream([], heartbeat=heartbeat)
