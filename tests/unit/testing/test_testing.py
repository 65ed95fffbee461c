"""The tools for tests: the recorder, the faulty log, streams without a server, and the fixtures."""

from __future__ import annotations

import configparser
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, abort, session

from ssehub import Client, Hub, HubClosed, LogError, MemoryLog, Message, RedisLog, event_stream
from ssehub.integrations.flask import SSEHub
from ssehub.service import create_app
from ssehub.testing import FaultyLog, NotAStream, RecordedHub, capture, serve, stream
from tests.followers import Follower
from tests.redis_server import RedisServer
from tests.servers import ROOT
from tests.streams import GUARD, call, until

pytest_plugins = ["pytester"]

MakeHub = Callable[..., Hub]


@pytest.fixture
def log() -> FaultyLog:
    return FaultyLog()


@pytest.fixture
def hub(log: FaultyLog) -> Iterator[RecordedHub]:
    made = RecordedHub(log)
    yield made
    made.close()


def texts(messages: list[Message]) -> list[str | None]:
    return [message.json()["reason"] if message.event == "ssehub.gap" else message.data for message in messages]


# The recorder


def test_the_recorder_shows_the_messages_of_each_client(hub: RecordedHub) -> None:
    hub.broadcast("to all")
    hub.broadcast(Message("to a", "score"), zone="a")
    hub.broadcast("to b", zone="b", exclude=["session"])
    hub.send("ada", "to ada")
    hub.send("ada", "to ada in a", zone="a")
    hub.disconnect("ada")
    assert texts(hub.events()) == ["to all", "to a", "to b"]
    assert texts(hub.events(client_id="ada")) == ["to all", "to a", "to b", "to ada", "to ada in a"]
    assert texts(hub.events("a")) == ["to all", "to a"] and hub.events("a")[1].event == "score"
    assert texts(hub.events("b", "ada")) == ["to all", "to b", "to ada"]
    assert texts(hub.events(["b", "c"], session_id="session")) == ["to all"]
    assert texts(hub.events("elsewhere")) == ["to all"]
    assert [(packet.zone, packet.client_id) for packet in hub.packets()][3:] == [
        (hub.packets()[0].zone, "ada"),
        ("a", "ada"),
    ]
    assert hub.connections() == [] and hub.stats()["opened"] == 0
    hub.clear()
    assert hub.events() == [] and hub.packets() == []


def test_the_recorder_shows_the_same_messages_as_a_stream(hub: RecordedHub) -> None:
    followers = [Follower(hub, zone="a", client_id="ada"), Follower(hub, zone=["b", "c"])]
    for number in range(300):  # more entries than one read returns
        hub.broadcast(Message(f"{number}\nlines", id="own" if number % 7 == 0 else None), zone="abc"[number % 3])
        hub.send("ada", str(number))
    hub.broadcast("last")
    for follower, told in zip(followers, (hub.events("a", "ada"), hub.events(["b", "c"])), strict=True):
        follower.wait_for_last("last")
        assert told == [event for event in follower.events if not event.event.startswith("ssehub.")]
    hub.close()
    for follower in followers:
        follower.join()


def test_the_hub_of_an_application_can_be_captured(make_hub: MakeHub) -> None:
    app = Flask(__name__)
    sse = SSEHub(app)
    with app.app_context():
        sse.broadcast("before")
        with capture(app.extensions["ssehub"]) as sent:
            sse.broadcast("hello", zone="news")
            assert texts(sent.events("news")) == ["hello"]
        sse.broadcast("after", zone="news")
        assert texts(sent.events()) == ["hello", "after"]
        sse.hub.close()
    assert texts(sent.events()) == ["hello", "after"]  # also after the hub was closed
    with pytest.raises(TypeError, match="its attribute hub"), capture(sse):  # type: ignore[arg-type]
        pass


def test_a_captured_log_may_have_a_gap(make_hub: MakeHub) -> None:
    hub = make_hub(MemoryLog(size=2))
    with capture(hub) as sent:
        for text in "abc":
            hub.broadcast(text)
        assert texts(sent.events()) == ["trimmed", "b", "c"] and len(sent.packets()) == 2


def test_a_hub_with_partitions_on_redis_can_be_captured(make_hub: MakeHub, redis_server: RedisServer) -> None:
    name = secrets.token_hex(4)
    hub, other = (make_hub(RedisLog(redis_server.url, name=name, partitions=4)) for _ in range(2))
    with capture(hub) as sent:
        for zone in "abcdefgh":
            other.broadcast(f"to {zone}", zone=zone)
        other.broadcast("to all")
        assert texts(sent.wait_for(2, zone="c")) == ["to c", "to all"]
        assert sorted(texts(sent.wait_for(9))) == sorted(["to all", *(f"to {zone}" for zone in "abcdefgh")])
        assert len(sent.packets()) == 9


def test_wait_for_returns_on_the_message_or_lists_the_events(hub: RecordedHub) -> None:
    def send() -> None:
        assert asked.wait(GUARD)
        hub.send("ada", "late", zone="a")

    asked = threading.Event()
    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(TimeoutError, match=r"for 1 events, but there are 0: \[\]"):
        hub.wait_for(timeout=0)
    asked.set()
    assert texts(hub.wait_for(zone="a", client_id="ada", timeout=GUARD)) == ["late"]
    thread.join()


# The faulty log


def test_the_next_messages_fail_with_or_without_being_written(hub: RecordedHub, log: FaultyLog) -> None:
    log.fail(2)
    for _ in range(2):
        with pytest.raises(LogError, match="not accepted"):
            hub.broadcast("lost")
    hub.broadcast("first")
    log.fail(written=True)
    with pytest.raises(LogError, match="not known"):
        hub.broadcast("second")
    hub.broadcast("third")
    assert texts(hub.events()) == ["first", "second", "third"]


def test_senders_wait_while_they_are_held(hub: RecordedHub, log: FaultyLog) -> None:
    def send(text: str) -> None:
        try:
            hub.broadcast(text)
        except LogError as error:
            refused.append(str(error))

    refused: list[str] = []
    threads = [threading.Thread(target=send, args=(text,)) for text in ("one", "other", "refused")]
    with log.held():
        for thread in threads[:2]:
            thread.start()
        log.wait_for_senders(2)
        assert hub.events() == []
        with pytest.raises(TimeoutError, match="2 are waiting"):
            log.wait_for_senders(3, timeout=0)
    assert len(hub.wait_for(2)) == 2
    with log.held():
        threads[2].start()
        log.wait_for_senders()
        hub.close()
        threads[2].join(GUARD)
    assert refused == ["the log is not started, or closed"]
    for thread in threads:
        thread.join()
    with pytest.raises(HubClosed):
        hub.broadcast("too late")


def test_a_trimmed_log_is_a_gap_only_for_clients_that_reconnect(hub: RecordedHub, log: FaultyLog) -> None:
    away, there = Follower(hub), Follower(hub)
    hub.broadcast("one")
    away.wait_for("one")
    away.leave(hub)
    there.wait_for("one")
    hub.broadcast("two")
    there.wait_for("one", "two")
    log.trim()
    back = Follower(hub, last_event_id=away.decoder.last_event_id)
    hub.broadcast("three")
    there.wait_for("one", "two", "three")
    back.wait_for("gap trimmed 1", "three")
    hub.close()
    for follower in (back, there):
        follower.join()


def test_a_flushed_log_is_a_gap_for_all_clients(hub: RecordedHub, log: FaultyLog) -> None:
    follower = Follower(hub)
    hub.broadcast("one")
    follower.wait_for("one")
    log.flush()
    follower.wait_for("one", "gap epoch None")
    hub.broadcast("two")
    follower.wait_for("one", "gap epoch None", "two")
    hub.close()
    follower.join()


def test_an_unreachable_log_refuses_senders_and_readers(hub: RecordedHub, log: FaultyLog) -> None:
    follower = Follower(hub)
    with log.away():
        with pytest.raises(LogError, match="reached"):
            hub.broadcast("lost")
        assert list(hub.stream(last_event_id=hub.cursor())) and hub.stats()["refused"] == 1
        with pytest.raises(LogError, match="reached"):
            hub.events()
    hub.broadcast("here again")
    follower.wait_for("here again")
    hub.close()
    follower.join()


# Streams


def test_a_stream_without_a_server_is_registered_with_the_hub(hub: RecordedHub) -> None:
    app = create_app(hub, public=False)
    with stream(app, "/events?zone=a&client_id=ada", headers={"Accept": "text/event-stream"}) as events:
        assert (events.status, events.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert hub.is_present("ada", "a") and hub.connections()[0].id == events.opened["session_id"]
        hub.connections()[0].send("to this session")
        receipt = hub.broadcast("hello", zone="a")
        assert texts(events.read(2)) == ["to this session", "hello"] and events.last_event_id == receipt.id
        events.timeout = 0.01
        with pytest.raises(TimeoutError, match="no message arrived"):
            next(events)
        events.timeout = GUARD
    assert hub.connections() == [] and hub.stats()["hang_ups"] == 1
    hub.broadcast("meanwhile", zone="a")
    with stream(app, "/events?zone=a", last_event_id=receipt.id) as events:
        hub.close()
        assert texts(list(events)) == ["meanwhile"]


@pytest.mark.parametrize(("detach", "taken"), [(None, 1), (True, 1), (False, 0)])
def test_a_stream_without_a_server_is_served_as_on_a_server(
    detach: bool | None, taken: int, make_hub: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub, left = make_hub(detach=detach), []
    hub.on_disconnect(left.append)
    with stream(create_app(hub, public=False), "/events") as events:
        until(lambda: hub.stats()["taken_over"] == taken)
        hub.broadcast("x" * 100_000)
        hub.broadcast("next")
        assert [len(text) for text in texts(events.read(2))] == [100_000, 4]
    assert left and hub.connections() == []
    assert hub.stats()["not_taken"] == {} and caplog.records == []


def test_a_stream_waits_for_its_reader_and_ends_on_close() -> None:
    asked = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        def count() -> Iterator[str]:
            while True:
                asked.append(environ["PATH_INFO"])
                yield str(len(asked))

        return event_stream(count())(environ, start_response)

    with stream(app, "/count") as events:
        assert texts(events.read(3)) == ["1", "2", "3"]
    assert 3 < len(asked) < 200


def test_errors_and_refusals_of_an_application_are_raised(hub: RecordedHub) -> None:
    def failing(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        yield b"data: one\n\n"
        raise ZeroDivisionError

    events = stream(failing)
    assert next(events).data == "one"
    with pytest.raises(ZeroDivisionError):
        next(events)
    events.close()
    with stream(create_app(hub, public=False), "/nothing") as events:
        assert events.status == 404
        with pytest.raises(NotAStream, match=r"answered 404 NOT FOUND, not with a stream$"):
            list(events)
    with pytest.raises(NotAStream, match="200 OK"), stream(create_app(hub, public=False), "/health") as events:
        events.read(1)


def test_a_stream_accepts_the_cookies_of_a_test_client(hub: RecordedHub) -> None:
    app = Flask(__name__)
    app.config.update(SECRET_KEY="secret", SSEHUB_HUB=hub)
    sse = SSEHub(app, client_id=lambda: session.get("user"))

    @app.get("/login/<user>")
    def login(user: str) -> dict[str, Any]:
        session["user"] = user
        return {}

    @app.get("/mine")
    @sse.stream
    def mine() -> str:
        if "user" not in session:
            abort(401)
        return "news"

    with stream(app, "/mine") as events, pytest.raises(NotAStream, match=r"answered 401 UNAUTHORIZED.*cookies="):
        next(events)
    client = app.test_client()
    client.get("/login/ada")
    cookie = client.get_cookie("session")
    assert cookie is not None
    for cookies in ({"session": cookie}, {"session": cookie.value, "more": "1"}):
        with stream(app, "/mine", cookies=cookies) as events:
            hub.send("ada", "to ada")
            assert next(events).data == "to ada" and events.opened["client_id"] == "ada"


def test_a_stream_that_does_not_end_raises_an_error() -> None:
    stuck = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        yield b":\n\n"
        stuck.wait(GUARD)

    events = stream(app, timeout=0.05)
    with pytest.raises(TimeoutError, match="has not ended"):
        events.close()
    stuck.set()
    events.close()


@pytest.mark.parametrize("detach", [None, True, False])
def test_a_server_serves_and_cuts_its_streams_on_close(detach: bool | None, make_hub: MakeHub) -> None:
    hub = make_hub(detach=detach)
    with serve(create_app(hub, public=False)) as server:
        client = Client(f"{server.url}/events")
        messages = client.subscribe()
        with client.start():
            until(hub.connections)
            call(server.port, "POST", "/send", {"data": "hello", "broadcast": "true"})
            assert messages.get(GUARD).data == "hello"
            server.close()
            until(lambda: not hub.connections())


# pytest


def test_the_documented_example_passes_as_a_separate_project(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for file in ("app.py", "test_app.py"):
        shutil.copy(ROOT / "examples" / "testing" / file, pytester.path)
    result = pytester.runpytest_inprocess("-p", "ssehub.integrations.pytest", "-W", "error", "--strict-markers")
    result.assert_outcomes(passed=5)


def test_the_hub_of_the_fixture_takes_arguments_and_is_closed_after_the_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import threading
        import pytest
        from ssehub import HubClosed
        from ssehub.service import create_app

        hubs = []

        @pytest.mark.ssehub(max_connections=1)
        def test_options(ssehub_hub, ssehub_stream):
            hubs.append(ssehub_hub)
            app = create_app(ssehub_hub, public=False)
            ssehub_stream(app, "/events"), ssehub_stream(app, "/events")
            assert ssehub_hub.stats()["refused"] == 1

        def test_gone(ssehub_hub):
            assert ssehub_hub is not hubs[0] and hubs[0].closed
            assert not [one for one in threading.enumerate() if one.name.startswith("ssehub")]
            assert ssehub_hub.events() == []
        """
    )
    pytester.runpytest_inprocess("-p", "ssehub.integrations.pytest", "--strict-markers").assert_outcomes(passed=2)


def test_pytest_finds_the_fixtures_without_importing_the_hub() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    (entry,) = settings["options.entry_points"]["pytest11"].split("\n")[1:]
    assert [part.strip() for part in entry.split("=")] == ["ssehub", "ssehub.integrations.pytest"]
    code = "import sys, ssehub.integrations.pytest; print([name for name in sys.modules if name.startswith('ssehub')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "['ssehub', 'ssehub.integrations', 'ssehub.integrations.pytest']"
