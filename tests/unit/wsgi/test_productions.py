"""Productions: generators whose output outlives the request and its readers, with a log in memory."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ssehub import Client, Hub, HubClosed, LogError, Message, Packet, ProductionError
from ssehub.testing import FaultyLog
from tests.conftest import Site
from tests.streams import GUARD, Stream, call, until

MakeHub = Callable[..., Hub]
Serve = Callable[[Any], Site]


def serving(hub: Hub, zone: Any = "answer") -> Any:
    return lambda environ, start: hub.connect(environ, zone=zone, since="oldest")(environ, start)


def ends(hub: Hub, zone: str = "answer") -> list[Any]:
    messages = hub.history(zone, limit=100_000).messages
    return [json.loads(one.data or "") for one in messages if one.event == "ssehub.end"]


def texts(hub: Hub, zone: str = "answer") -> list[str | None]:
    messages = hub.history(zone, limit=100_000).messages
    return [one.data for one in messages if one.event != "ssehub.end"]


class Gate:
    """A generator that brings an item for each permit."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.closed = threading.Event()

    def __call__(self) -> Iterator[str]:
        n = 0
        try:
            while True:
                assert self.permits.acquire(timeout=GUARD)
                yield str(n)
                n += 1
        finally:
            self.closed.set()


def test_readers_before_during_and_after_get_every_item_once_and_then_the_end(make_hub: MakeHub, site: Serve) -> None:
    hub, gate = make_hub(), Gate()
    here = site(serving(hub))

    def items() -> Iterator[Any]:
        yield from ("first", {"n": 1}, Message("x", "token"))
        assert gate.permits.acquire(timeout=GUARD)
        yield "last"

    early = here.stream()
    early.opened()
    run = hub.produce("answer", items())
    assert run.started and run.zone == "answer"
    until(lambda: len(texts(hub)) == 3)
    during = here.stream()
    assert during.data(3) == ["first", '{"n":1}', "x"]
    gate.permits.release()
    until(lambda: ends(hub))
    for stream, skipped in ((early, 0), (during, 3), (here.stream(), 0)):
        events = [one for one in stream.rest() if one.data is not None and one.event != "ssehub.open"]
        assert [(one.event, one.data) for one in events] == [
            ("message", "first"), ("message", '{"n":1}'), ("token", "x"), ("message", "last"),
            ("ssehub.end", '{"reason":"done","zone":"answer"}'),
        ][skipped:]  # fmt: skip
        last = events[-1].id
        assert last is not None and last.endswith(".end")
        assert call(here.port, "GET", "/", **{"Last-Event-ID": last}) == (204, b"")
        assert call(here.port, "GET", f"/?lastEventId={last}") == (204, b"")
    until(lambda: not hub.connections())


def test_a_stream_of_several_zones_goes_on_after_an_end(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub()
    here = site(serving(hub, ["answer", "news"]))
    stream = here.stream()
    stream.opened()
    hub.produce("answer", ["a", "b"], coalesce=0)
    assert stream.data(2) == ["a", "b"]
    end = stream.event()
    assert end.event == "ssehub.end" and end.id is not None
    hub.broadcast("more", zone="news")
    assert stream.data(1) == ["more"]
    again = here.stream(**{"Last-Event-ID": end.id})
    assert again.data(1) == ["more"]


def test_the_end_comes_in_order_to_readers_that_wait_among_others(make_hub: MakeHub, site: Serve) -> None:
    hub, gate = make_hub(), Gate()
    here = site(serving(hub))
    streams = [here.stream() for _ in range(10)]
    for stream in streams:
        stream.opened()
    run = hub.produce("answer", gate(), coalesce=0)
    gate.permits.release(50)
    until(lambda: len(texts(hub)) == 50)
    run.stop()
    until(lambda: ends(hub))
    hub.broadcast("after the end", zone="answer")
    for stream in streams:
        data = [one.data for one in stream.rest() if one.data is not None and one.event != "ssehub.open"]
        assert data == [*map(str, range(50)), '{"reason":"stopped","zone":"answer"}']
    gate.permits.release()
    assert gate.closed.wait(GUARD)


def test_a_client_ends_in_order_at_once(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub(retry=60_000)
    here = site(serving(hub))
    hub.produce("answer", ["a", "b"], coalesce=0)
    ended: list[Any] = []
    client = Client(f"http://127.0.0.1:{here.port}/")
    client.on_event("ssehub.end", lambda message: ended.append(message.json()))
    assert [message.data for message in client] == ["a", "b"]
    assert ended == [{"reason": "done", "zone": "answer"}] and client.error is None
    assert list(Client(f"http://127.0.0.1:{here.port}/", last_event_id=client.last_event_id)) == []


def test_a_client_of_an_empty_production_has_no_error(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub(retry=60_000)
    here = site(serving(hub))
    hub.produce("answer", [])
    errors: list[Any] = []
    client = Client(f"http://127.0.0.1:{here.port}/")
    client.on_error(lambda error, delay: errors.append(error))
    assert list(client) == [] and errors == []


def test_texts_that_come_quickly_are_joined_in_order(make_hub: MakeHub) -> None:
    hub, go = make_hub(), threading.Event()

    def items() -> Iterator[Any]:
        yield from "abcde"
        yield {"a": 1}
        yield from "fgh"
        assert go.wait(GUARD)

    hub.produce("answer", items(), coalesce=3600.0)
    until(lambda: len(texts(hub)) >= 2)
    go.set()
    until(lambda: ends(hub))
    found = [text or "" for text in texts(hub)]
    assert "".join(found) == 'abcde{"a":1}fgh' and '{"a":1}' in found and found[-1] == "fgh"
    hub.produce("each", ["a", "b", "c"], coalesce=0)
    until(lambda: ends(hub, "each"))
    assert texts(hub, "each") == ["a", "b", "c"]


def test_text_is_sent_although_the_generator_is_silent(make_hub: MakeHub) -> None:
    hub, gate = make_hub(), Gate()
    run = hub.produce("answer", gate(), coalesce=0.02)
    gate.permits.release(3)
    until(lambda: "".join(text or "" for text in texts(hub)) == "012")
    run.stop()
    until(lambda: ends(hub) == [{"reason": "stopped", "zone": "answer"}])
    gate.permits.release()
    assert gate.closed.wait(GUARD)


def test_large_texts_are_not_joined_without_a_limit(make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.produce("answer", ["x" * 40_000] * 20)
    until(lambda: ends(hub))
    assert sum(len(text or "") for text in texts(hub)) == 800_000
    assert max(len(text or "") for text in texts(hub)) <= 65_536


@pytest.mark.parametrize("bad", [None, object(), "x" * (1 << 20) + "x", Message("x", "ssehub.end"), Message(id="")])
def test_an_item_that_cannot_be_sent_ends_it_with_an_error(
    make_hub: MakeHub, bad: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hub, closed = make_hub(), threading.Event()

    def items() -> Iterator[Any]:
        try:
            yield "fine"
            yield bad
            yield "never"
        finally:
            closed.set()

    hub.produce("answer", items())
    assert closed.wait(GUARD)
    until(lambda: ends(hub) == [{"reason": "error", "zone": "answer"}])
    assert texts(hub) == ["fine"] and "the production 'answer' has failed" in caplog.text


def test_the_text_of_an_error_is_public_only_if_the_application_says_so(
    make_hub: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub = make_hub()

    def fails(error: BaseException) -> Iterator[str]:
        yield "a"
        raise error

    for error, extra, logged in (
        (OSError("secret"), {}, 1),
        (SystemExit(3), {}, 2),
        (ProductionError("the model is busy"), {"text": "the model is busy"}, 2),
    ):
        zone = type(error).__name__
        hub.produce(zone, fails(error))
        until(lambda zone=zone: ends(hub, zone))  # type: ignore[misc]
        assert ends(hub, zone) == [{"reason": "error", "zone": zone, **extra}] and texts(hub, zone) == ["a"]
        assert len([one for one in caplog.records if one.exc_info]) == logged


def test_a_production_is_started_once_for_its_key(make_hub: MakeHub) -> None:
    hub, started = make_hub(), []
    closed: list[int] = []

    class Items:
        def __init__(self, number: int) -> None:
            self.number = number

        def __iter__(self) -> Items:
            return self

        def __next__(self) -> str:
            started.append(self.number)
            raise StopIteration

        def close(self) -> None:
            closed.append(self.number)

    runs: list[Any] = []
    threads = [
        threading.Thread(target=lambda n=n: runs.append(hub.produce(f"zone {n}", Items(n), key="order 17")))  # type: ignore[misc]
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (first,) = [run for run in runs if run.started]
    assert {run.zone for run in runs} == {first.zone}
    until(lambda: ends(hub, first.zone) == [{"reason": "done", "zone": first.zone}])
    assert [f"zone {n}" for n in started] == [first.zone]
    until(lambda: sorted(closed) == list(range(20)))
    assert not hub.produce("zone 99", Items(99), key="order 17").started


def test_to_stop_what_does_not_run_does_nothing(make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.stop("nobody")
    run = hub.produce("answer", ["a"])
    until(lambda: ends(hub))
    run.stop()
    hub.stop("answer")
    assert ends(hub) == [{"reason": "done", "zone": "answer"}]


def test_a_closed_hub_ends_its_productions_as_lost(make_hub: MakeHub) -> None:
    hub, gate = make_hub(), Gate()
    hub.produce("answer", gate(), coalesce=0)
    gate.permits.release(2)
    until(lambda: len(texts(hub)) == 2)
    hub.end_streams()
    gate.permits.release()
    until(lambda: len(texts(hub)) == 3)
    hub.close()
    assert ends(hub) == [{"reason": "lost", "zone": "answer"}]
    with pytest.raises(HubClosed):
        hub.produce("another", [])
    with pytest.raises(HubClosed):
        hub.stop("answer")
    gate.permits.release()
    assert gate.closed.wait(GUARD)


def test_a_production_that_takes_too_long_ends_with_an_error(make_hub: MakeHub) -> None:
    hub, gate = make_hub(), Gate()
    hub.produce("silent", gate(), ttl=0.05)
    until(lambda: ends(hub, "silent"))
    assert ends(hub, "silent") == [{"reason": "error", "zone": "silent", "text": "it took longer than 0.05 seconds"}]

    def endless() -> Iterator[Any]:
        while True:
            yield {}

    hub.produce("endless", endless(), ttl=0.05)
    until(lambda: ends(hub, "endless"))
    gate.permits.release()
    assert gate.closed.wait(GUARD)


def test_while_the_log_is_away_the_generator_waits_and_nothing_is_lost_or_doubled(detach: Any) -> None:
    log = FaultyLog(100_000)
    hub, brought = Hub(log), []

    def items() -> Iterator[Any]:
        for n in range(2000):
            brought.append(n)
            yield n

    with log.away():
        with pytest.raises(LogError):
            hub.produce("answer", items())
        assert brought == []
    go = threading.Event()

    def gated() -> Iterator[Any]:
        assert go.wait(GUARD)
        yield from items()

    hub.produce("answer", gated())
    with log.away():
        go.set()
        until(lambda: len(brought) == 258, "256 items in the queue, one that is being sent, one that waits")
    log.fail(written=True)
    until(lambda: ends(hub), guard=30.0)
    assert texts(hub) == [str(n) for n in range(2000)]
    hub.close()


def test_a_thread_of_a_production_that_cannot_start_leaves_an_end(
    make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, start = make_hub(), threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "ssehub-iterator":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        hub.produce("answer", ["a"])
    until(lambda: ends(hub) == [{"reason": "error", "zone": "answer"}])


def test_a_hub_that_nobody_holds_lives_until_its_productions_have_ended() -> None:
    hub, gate = Hub(), Gate()
    gone = weakref.ref(hub)
    hub.produce("answer", gate())
    del hub
    gc.collect()
    assert gone() is not None
    gate.permits.release()
    found = gone()
    assert found is not None
    found.stop("answer")
    del found
    gate.permits.release()
    until(lambda: gc.collect() is not None and gone() is None)


@pytest.mark.parametrize(
    "arguments", [("", []), (None, []), ("a", "text"), ("a", b"x"), ("a", 7), ("a\n", [])], ids=repr
)
def test_wrong_arguments_are_refused(make_hub: MakeHub, arguments: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        make_hub().produce(*arguments)


@pytest.mark.parametrize("named", [{"key": ""}, {"ttl": 0}, {"coalesce": -1}, {"coalesce": "x"}, {"key": 7}], ids=repr)
def test_wrong_options_are_refused(make_hub: MakeHub, named: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        make_hub().produce("a", [], **named)


def test_an_application_cannot_send_an_end(make_hub: MakeHub) -> None:
    hub = make_hub()
    with pytest.raises(ValueError, match="hub's own"):
        hub.broadcast(Message("{}", "ssehub.end"), zone="a")
    receipt = hub.broadcast("x", zone="a")
    with pytest.raises(ValueError, match="looks like a cursor"):
        Packet(Message("x", id=f"{receipt.id}.end"), broadcast=True)


def test_an_id_of_an_application_that_ends_like_an_end_is_none(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub()
    here = site(serving(hub, "a"))
    hub.broadcast(Message("x", id="my.end"), zone="a")
    hub.broadcast("y", zone="a")
    assert Stream(here.port, "/", {"Last-Event-ID": "my.end"}).data(1) == ["y"]


@pytest.mark.parametrize("written", [False, True])
def test_a_beginning_of_which_it_is_not_known_whether_it_was_accepted_leaves_an_end(written: bool) -> None:
    class Shared(FaultyLog):
        shared = True

    log = Shared()
    hub = Hub(log)
    ran: list[int] = []
    hub.cursor()  # starts the log
    log.fail(written=written)
    with pytest.raises(LogError):
        hub.produce("answer", (ran.append(1) for _ in range(3)))
    until(lambda: ends(hub) == [{"reason": "error", "zone": "answer"}])
    assert not hub.produce("answer", ["x"]).started and texts(hub) == [] and ran == []
    hub.close()


def test_a_stop_that_the_log_does_not_accept_stops_what_runs_here() -> None:
    log, gate = FaultyLog(), Gate()
    hub = Hub(log)
    hub.produce("answer", gate())
    log.fail()
    with pytest.raises(LogError):
        hub.stop("answer")
    until(lambda: ends(hub) == [{"reason": "stopped", "zone": "answer"}])
    gate.permits.release()
    assert gate.closed.wait(GUARD)
    hub.close()
