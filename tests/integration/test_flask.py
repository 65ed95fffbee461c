"""Flask: the extension, over real sockets."""

from __future__ import annotations

import functools
import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, abort, current_app, request, session

from ssehub import Connection, Gap, Hub, MemoryLog, Message, Packet, Receipt, RedisLog, testing
from ssehub.integrations.flask import SSEHub
from tests.redis_server import RedisServer
from tests.servers import ROOT
from tests.streams import Stream, call, until

Serve = Callable[[Any], Any]


@pytest.fixture
def make() -> Iterator[Callable[..., tuple[Flask, SSEHub]]]:
    """Give a function that makes an application with the extension."""
    made: list[Flask] = []

    def make_app(settings: dict[str, Any] | None = None, **options: Any) -> tuple[Flask, SSEHub]:
        app = Flask(__name__)
        app.secret_key = "secret"
        app.config.update(settings or {})
        made.append(app)
        return app, SSEHub(app, **options)

    yield make_app
    for app in made:
        app.extensions["ssehub"].close()


def test_a_stream_and_a_view_that_sends(make: Callable[..., tuple[Flask, SSEHub]], site: Serve) -> None:
    app, sse = make({"SSEHUB_URL": "/events", "SSEHUB_HEARTBEAT": 0.1})

    @app.post("/news")
    def news() -> dict[str, str]:
        return {"id": sse.broadcast(request.form, event="news").id}

    here = site(app)
    stream = here.stream("/events")
    stream.opened()
    status, answer = call(here.port, "POST", "/news", {"text": "hello"})
    message = stream.message()
    assert status == 200 and (message.event, message.json(), message.id) == ("news", {"text": "hello"}, answer["id"])
    stream.close()


@pytest.mark.parametrize(("setting", "detached"), [({}, 0), ({"SSEHUB_DETACH": True}, 1)])
def test_a_setting_says_whether_streams_leave_the_servers_threads(
    setting: dict[str, Any], detached: int, make: Callable[..., tuple[Flask, SSEHub]], site: Serve
) -> None:
    app, sse = make({"SSEHUB_URL": "/events", **setting})
    stream = site(app).stream("/events")
    stream.opened()
    until(lambda: sse.hub.stats()["taken_over"] == 1)
    assert sse.hub.stats()["detached"] == detached
    sse.broadcast("hello")
    assert stream.message().data == "hello"
    stream.close()


def test_a_view_says_whose_stream_it_is_and_who_may(make: Callable[..., tuple[Flask, SSEHub]], site: Serve) -> None:
    app, sse = make()

    @app.get("/login/<name>")
    def login(name: str) -> str:
        session["name"] = name
        return name

    @app.get("/mine")
    @sse.stream
    def mine() -> dict[str, Any]:
        if "name" not in session:
            abort(401)
        return {"zone": ["news", f"user {session['name']}"], "client_id": session["name"], "metadata": request.path}

    @app.get("/open")
    @sse.stream
    def anybody() -> str:
        return "news"

    @app.get("/elsewhere")
    @sse.stream
    def elsewhere() -> tuple[str, int]:
        return "gone", 410

    here = site(app)
    assert call(here.port, "GET", "/mine")[0] == 401 and sse.hub.connections() == []
    assert call(here.port, "GET", "/elsewhere") == (410, b"gone")
    cookie = app.test_client().get("/login/ada").headers["Set-Cookie"].split(";")[0]
    stream, other = here.stream("/mine", Cookie=cookie), here.stream("/open")
    assert stream.opened()["client_id"] == "ada" and other.opened()
    assert sse.hub.get_metadata("ada") == "/mine"
    sse.send("ada", "to ada")
    sse.broadcast("news", zone="news")
    assert stream.data(2) == ["to ada", "news"] and other.data(1) == ["news"]
    for one in (stream, other):
        one.close()


def test_the_rule_asks_who_may_follow_before_anything_is_registered(
    make: Callable[..., tuple[Flask, SSEHub]], site: Serve
) -> None:
    asked: list[tuple[str, list[str], str | None]] = []

    def authorize(wanting: Any, action: str, zones: list[str], client_id: str | None) -> Any:
        asked.append((action, zones, client_id))
        if client_id is None:
            abort(401)
        return {"a": True, "b": False, "c": None}[zones[0]]

    app, sse = make({"SSEHUB_URL": "/events"}, client_id=lambda: request.args.get("me"), authorize=authorize)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    here = site(app)
    assert call(here.port, "GET", "/events?zone=a")[0] == 401
    assert call(here.port, "GET", "/events?zone=b&me=ada")[0] == 403
    logging.getLogger(app.name).disabled = True
    assert call(here.port, "GET", "/events?zone=c&me=ada")[0] == 500  # it forgot its return
    assert sse.hub.connections() == [] and asked[1] == ("subscribe", ["b"], "ada")
    stream = here.stream("/events?zone=a&me=ada")
    assert stream.opened()["client_id"] == "ada"
    stream.close()


def test_authorize_and_a_view_say_how_long_a_stream_may_last(
    make: Callable[..., tuple[Flask, SSEHub]], site: Serve
) -> None:
    app, sse = make({"SSEHUB_URL": "/events"}, authorize=lambda *asked: timedelta(seconds=0.1))
    app.add_url_rule("/mine", view_func=sse.stream(lambda: {"zone": "a", "max_age": 0.1}), endpoint="mine")
    app.add_url_rule("/wrong", view_func=sse.stream(lambda: {"zone": "a", "max_age": 0}), endpoint="wrong")
    here = site(app)
    for path in ("/events", "/mine"):
        stream = here.stream(path)
        assert [event.event for event in stream.rest()] == ["ssehub.open"]
        stream.close()
    assert call(here.port, "GET", "/wrong")[0] == 400


def test_without_authorize_only_the_default_zone_is_open(
    make: Callable[..., tuple[Flask, SSEHub]], site: Serve
) -> None:
    app, _ = make({"SSEHUB_URL": "/events"})
    here = site(app)
    assert call(here.port, "GET", "/events?zone=secret")[0] == 403
    stream = here.stream("/events")
    stream.opened()
    stream.close()


def test_a_page_of_a_named_origin_that_uses_fetch_may_come_back(make: Callable[..., tuple[Flask, SSEHub]]) -> None:
    origin = "https://app.example"
    app, sse = make({"SSEHUB_URL": "/events", "SSEHUB_ORIGINS": [origin]}, authorize=lambda *asked: abort(401))

    def login_required(view: Callable[[], Any]) -> Callable[[], Any]:
        return functools.wraps(view)(lambda: view() if "user" in session else abort(401))

    app.add_url_rule("/mine", view_func=login_required(sse.stream(lambda: "a")), endpoint="mine")
    app.add_url_rule("/other", view_func=lambda: "x", endpoint="other")
    page = app.test_client()
    for path in ("/events", "/mine"):
        answer = page.options(path, headers={"Origin": origin, "Access-Control-Request-Method": "GET"})
        assert answer.status_code == 204 and answer.headers["Access-Control-Allow-Origin"] == origin
        assert "last-event-id" in answer.headers["Access-Control-Allow-Headers"]
        assert page.get(path, headers={"Origin": origin}).status_code == 401
    for path, asking in (
        ("/mine", "https://evil.example"),
        ("/events", None),
        ("/other", origin),
        ("/nothing", origin),
    ):
        answer = page.options(path, headers={"Origin": asking} if asking else {})
        assert answer.status_code in (200, 404) and "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("query", ["zone=", "zone=a%00", "zone=" + "z" * 256, "me=", "me=a%0Ab", "since="])
def test_names_that_a_stream_cannot_have_are_a_400(
    make: Callable[..., tuple[Flask, SSEHub]], site: Serve, query: str
) -> None:
    app, sse = make({"SSEHUB_URL": "/events"}, authorize=lambda *asked: True, client_id=lambda: request.args.get("me"))

    def wanted() -> dict[str, Any]:
        return {"zone": request.args.get("zone", "a"), "client_id": request.args.get("me"),
                "since": request.args.get("since")}  # fmt: skip

    app.add_url_rule("/plain", view_func=lambda: sse.hub.connect(request, **wanted()), endpoint="plain")
    app.add_url_rule("/stream", view_func=sse.stream(wanted))
    here = site(app)
    for path in ("/plain", "/stream") if "since" in query else ("/plain", "/stream", "/events"):
        assert call(here.port, "GET", f"{path}?{query}")[0] == 400
    assert sse.hub.stats()["opened"] == 0


def test_a_mistake_of_the_applications_own_functions_is_not_the_clients(
    make: Callable[..., tuple[Flask, SSEHub]], site: Serve
) -> None:
    def fail(*given: Any) -> Any:
        raise ValueError("secret")

    for options in ({"client_id": fail}, {"authorize": fail}):
        app, sse = make({"SSEHUB_URL": "/events"}, **options)
        app.config["PROPAGATE_EXCEPTIONS"] = False
        app.add_url_rule("/stream", view_func=sse.stream(lambda: "a"))
        logging.getLogger(app.name).disabled = True
        here = site(app)
        for path in ("/events", "/stream") if "client_id" in options else ("/events",):
            status, answer = call(here.port, "GET", path)
            assert status == 500 and b"secret" not in answer


def test_a_page_of_a_named_origin_may_read_with_its_cookies(
    make: Callable[..., tuple[Flask, SSEHub]], site: Serve
) -> None:
    app, _ = make({"SSEHUB_URL": "/events", "SSEHUB_ORIGINS": ["https://app.example"]})
    here = site(app)
    for origin, allowed in (("https://app.example", "https://app.example"), ("https://evil.example", None)):
        stream = here.stream("/events", Origin=origin)
        stream.opened()
        assert stream.response.headers["Access-Control-Allow-Origin"] == allowed
        assert stream.response.headers["Access-Control-Allow-Credentials"] == (allowed and "true")
        assert stream.response.headers["Vary"] == "Origin"
        stream.close()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"SSEHUB_HEARTBEET": 3}, "SSEHUB_HEARTBEET"),
        ({"SSEHUB_HEARTBEAT": -1}, "heartbeat"),
        ({"SSEHUB_ORIGINS": ["app.example"]}, "not an origin"),
        ({"SSEHUB_ORIGINS": ["https://app.example/"]}, "not an origin"),
        ({"SSEHUB_LOG": "nothing://x"}, "memory:, sqlite:"),
    ],
)
def test_settings_that_are_unfit_are_refused(settings: dict[str, Any], text: str) -> None:
    app = Flask(__name__)
    app.config.update(settings)
    with pytest.raises(ValueError, match=text):
        SSEHub(app)


def test_one_extension_serves_several_applications_and_tells_when_there_is_none() -> None:
    sse = SSEHub()
    with pytest.raises(RuntimeError, match="no application"):
        sse.broadcast("x")
    apps = [Flask("one"), Flask("two")]
    for app in apps:
        sse.init_app(app)
    hubs = []
    for app in apps:
        with app.app_context():
            hubs.append(sse.hub)
    assert len({id(hub) for hub in hubs}) == 2
    for hub in hubs:
        hub.close()


def test_hooks_are_added_before_or_after_the_application_and_run_in_its_context(
    make_hub: Callable[..., Hub],
) -> None:
    sse, seen = SSEHub(), []

    @sse.on_connection
    def hello(connection: Connection) -> None:
        connection.send(f"welcome to {current_app.name}")

    apps = [Flask("one"), Flask("two")]
    for app in apps:
        app.config.update(SSEHUB_URL="/events", SSEHUB_HUB=make_hub())
        sse.init_app(app)

    @sse.on_gap
    def missed(connection: Connection, gap: Gap) -> None:
        seen.append(f"{current_app.name}: {gap.reason}")

    @sse.on_disconnect
    def bye(connection: Connection) -> None:
        seen.append(f"{current_app.name}: {connection.closed}")

    for app in apps:
        with testing.stream(app, "/events", last_event_id="nothing") as events:
            welcome, gap = sorted(events.read(2), key=lambda message: message.event)
            assert (welcome.data, gap.event) == (f"welcome to {app.name}", "ssehub.gap")
    assert seen == ["one: bad_id", "one: hang-up", "two: bad_id", "two: hang-up"]
    for app in apps:
        app.extensions["ssehub"].close()


def test_the_extension_takes_a_hub_and_gives_its_cursor(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub()
    app = Flask(__name__)
    app.config.update(SSEHUB_HUB=hub, SSEHUB_HEARTBEAT=3, SSEHUB_LOG="redis://nowhere", SSEHUB_URL="/events")
    sse = SSEHub(app)
    assert sse.hub is hub
    cursor = sse.cursor("default")
    sse.broadcast({"a": 1}, zone="default", event="task")
    sse.send("ada", [1], id="7")
    with testing.stream(app, f"/events?lastEventId={cursor}") as events:
        message = next(events)
        assert (message.event, message.data) == ("task", '{"a":1}')
    with pytest.raises(TypeError, match="SSEHUB_HUB must be a Hub, not str"):
        make_hub_of(app, "redis://localhost")


def make_hub_of(app: Flask, hub: Any) -> None:
    app.config["SSEHUB_HUB"] = hub
    SSEHub().init_app(app)


def test_the_command_sends_through_a_shared_log_and_says_so_if_it_is_none(
    make: Callable[..., tuple[Flask, SSEHub]], redis_server: RedisServer, make_hub: Callable[..., Hub]
) -> None:
    name = secrets.token_hex(4)
    app, _ = make({"SSEHUB_LOG": redis_server.url, "SSEHUB_LOG_OPTIONS": {"name": name}})
    done = app.test_cli_runner().invoke(args=["ssehub", "send", "hello", "--zone", "a", "--event", "greeting"])
    assert done.exit_code == 0, done.output
    log = RedisLog(redis_server.url, name=name)
    hub = make_hub(log)
    hub.cursor()
    (entry,) = log.read(log.oldest(), 10).entries
    assert (entry.packet.message, entry.packet.zone) == (Message("hello", "greeting"), "a")
    assert done.output == f"{entry.id}\n"
    done = app.test_cli_runner().invoke(args=["ssehub", "send", "hello", "--zone", "a\tb"])
    assert done.exit_code == 1 and "control" in done.output
    plain, _ = make()
    done = plain.test_cli_runner().invoke(args=["ssehub", "send", "hello"])
    assert done.exit_code == 1 and "SSEHUB_LOG" in done.output


def test_a_stream_holds_no_database_connection(
    make: Callable[..., tuple[Flask, SSEHub]], site: Serve, caplog: Any
) -> None:
    """Twenty streams whose views have asked the database, and a pool of two."""
    sqlalchemy = pytest.importorskip("flask_sqlalchemy")
    from sqlalchemy import text
    from sqlalchemy.pool import QueuePool

    app, sse = make()
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///file:pool?mode=memory&cache=shared&uri=true"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "poolclass": QueuePool, "pool_size": 2, "max_overflow": 0, "pool_timeout": 2,
        "connect_args": {"check_same_thread": False},
    }  # fmt: skip
    database = sqlalchemy.SQLAlchemy(app)

    class Visit(database.Model):  # type: ignore[name-defined,misc]
        id = database.Column(database.Integer, primary_key=True)

    with app.app_context():
        database.create_all()

    @app.get("/events")
    @sse.stream
    def events() -> str:
        database.session.execute(text("select 1"))
        if "careless" in request.args:
            database.session.add(Visit())
        return "default"

    @app.get("/query")
    def query() -> str:
        return str(database.session.execute(text("select 1")).scalar())

    here = site(app)
    streams = [here.stream("/events") for _ in range(20)]
    for stream in streams:
        stream.opened()
    assert call(here.port, "GET", "/query") == (200, b"1")
    with app.app_context():
        assert database.engine.pool.checkedout() == 0
    assert not caplog.records
    streams.append(here.stream("/events?careless=1"))
    streams[-1].opened()
    assert "commit them before" in caplog.text
    for stream in streams:
        stream.close()
    until(lambda: not sse.hub.connections())
    with app.app_context():
        database.engine.dispose()
    assert threading.active_count() < 30 and isinstance(streams[0], Stream)


def test_the_example_of_the_documents_runs(site: Serve) -> None:
    page = (ROOT / "docs" / "flask.rst").read_text()
    block, _ = re.findall(r"^\.\. code-block:: python\n\n((?:(?:    .*)?\n)+)", page, re.MULTILINE)
    scope: dict[str, Any] = {"__name__": "app"}
    exec("\n".join(line[4:] for line in block.splitlines()), scope)
    here = site(scope["app"])
    assert call(here.port, "GET", "/events")[0] == 401
    cookie = scope["app"].test_client().post("/login", data={"user": "ada"}).headers["Set-Cookie"].split(";")[0]
    stream = here.stream("/events?room=7", Cookie=cookie)
    assert stream.opened()["client_id"] == "ada"
    assert call(here.port, "POST", "/news", {"text": "hello"})[0] == 200
    scope["sse"].hub.send("ada", "in the room", zone="room 7")
    assert stream.data(2) == ["hello", "in the room"]
    stream.close()
    scope["sse"].hub.close()


@pytest.mark.parametrize("detach", [None, True])
def test_the_test_client_warns_of_no_server(
    detach: bool | None, make: Callable[..., tuple[Flask, SSEHub]], caplog: pytest.LogCaptureFixture
) -> None:
    app, _ = make({"SSEHUB_URL": "/events", "SSEHUB_DETACH": detach})
    with app.test_client().get("/events") as response:
        assert b"ssehub.open" in next(response.response)
    assert caplog.records == []


class Database:
    """An application with Flask-SQLAlchemy, whose session sends messages after the commit."""

    def __init__(self, make: Callable[..., tuple[Flask, SSEHub]], folder: Path) -> None:
        sqlalchemy = pytest.importorskip("flask_sqlalchemy")
        self.app, self.sse = make({"SQLALCHEMY_DATABASE_URI": f"sqlite:///{folder}/app.db"})
        self.database = sqlalchemy.SQLAlchemy(self.app)
        self.session = self.database.session
        self.sent: list[str | None] = []
        self.sse.hub.cursor()

    def texts(self) -> list[str | None]:
        log = self.sse.hub._log
        return [entry.packet.message.data for entry in log.read(log.oldest(), 100).entries]

    def query(self) -> None:
        from sqlalchemy import text

        self.session.execute(text("select 1"))


@pytest.fixture
def database(make: Callable[..., tuple[Flask, SSEHub]], tmp_path: Path) -> Iterator[Database]:
    one = Database(make, tmp_path)
    with one.app.app_context():
        yield one
        one.session.remove()
        one.database.engine.dispose()


def test_a_message_is_sent_after_the_commit_and_not_after_a_rollback(database: Database) -> None:
    database.query()
    database.sse.after_commit("first")
    database.sse.after_commit("second", zone="a", event="e", client_id="ada")
    assert database.texts() == []
    database.session.commit()
    assert database.texts() == ["first", "second"]
    database.query()
    database.sse.after_commit("rolled back")
    database.session.rollback()
    database.sse.after_commit("closed")
    database.query()
    database.session.remove()
    database.query()
    database.session.commit()
    assert database.texts() == ["first", "second"]


def test_a_message_of_the_next_transaction_waits_for_its_commit(database: Database) -> None:
    database.sse.after_commit("before the first query")
    database.query()
    assert database.texts() == []
    database.session.commit()
    assert database.texts() == ["before the first query"]
    database.session.commit()
    assert database.texts() == ["before the first query"]


def test_a_message_of_a_savepoint_shares_its_fate(database: Database) -> None:
    with database.session.begin_nested():
        database.sse.after_commit("kept")
        inner = database.session.begin_nested()
        database.sse.after_commit("dropped")
        inner.rollback()
        with database.session.begin_nested():
            database.sse.after_commit("kept, too")
    outer = database.session.begin_nested()
    with database.session.begin_nested():
        database.sse.after_commit("released, and then rolled back around")
    outer.rollback()
    database.sse.after_commit("last")
    assert database.texts() == []
    database.session.commit()
    assert database.texts() == ["kept", "kept, too", "last"]


class _OddLog(MemoryLog):
    """A log that raises an error which no log should raise."""

    def append(self, packet: Packet) -> Receipt:
        if packet.message.data == "odd":
            raise RuntimeError("odd")
        return super().append(packet)


def test_a_message_that_cannot_be_sent_after_the_commit_does_not_hold_up_the_next(
    make: Callable[..., tuple[Flask, SSEHub]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(lambda config: make({**config, "SSEHUB_LOG": _OddLog()}), tmp_path)
    with database.app.app_context():
        database.query()
        for text in ("first", "odd", "second"):
            database.sse.after_commit(text)
        database.session.commit()
        database.session.remove()
        database.database.engine.dispose()
    assert database.texts() == ["first", "second"]
    assert "not sent after its transaction was committed: odd" in caplog.text


def test_wrong_messages_and_sessions_are_refused_at_once(
    database: Database, make: Callable[..., tuple[Flask, SSEHub]], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TypeError, match="None"):
        database.sse.after_commit(None)
    with pytest.raises(ValueError, match="control"):
        database.sse.after_commit("x", zone="a\n")
    with pytest.raises(TypeError, match="session"):
        database.sse.after_commit("x", session=object())
    app, sse = make()
    with app.app_context(), pytest.raises(RuntimeError, match="Flask-SQLAlchemy"):
        sse.after_commit("x")
    database.query()
    database.sse.after_commit("x")
    database.sse.hub.close()
    database.session.commit()
    assert "not sent after its transaction was committed" in caplog.text
