"""Django: the views and the command, on a real site over real sockets."""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import secrets
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

django = pytest.importorskip("django")

from django.conf import settings  # noqa: E402
from django.core.exceptions import ImproperlyConfigured, PermissionDenied  # noqa: E402
from django.core.handlers.asgi import ASGIRequest  # noqa: E402
from django.core.management import CommandError, call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connections, transaction  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.middleware.gzip import GZipMiddleware  # noqa: E402
from django.test import Client, TestCase, override_settings  # noqa: E402
from django.urls import path  # noqa: E402

from ssehub import Hub, Message, RedisLog, testing  # noqa: E402
from tests.redis_server import RedisServer  # noqa: E402
from tests.servers import ROOT  # noqa: E402
from tests.streams import Stream, call, until  # noqa: E402


class Compressing(GZipMiddleware):
    """The middleware as a site may have it: under another name."""


FOLDER = tempfile.mkdtemp()
atexit.register(shutil.rmtree, FOLDER)
settings.configure(
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="secret",
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["ssehub.integrations.django"],
    MIDDLEWARE=[f"{__name__}.Compressing", "django.middleware.http.ConditionalGetMiddleware"],
    # A file, because Django closes no connection to a database in memory.
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{FOLDER}/db", "ATOMIC_REQUESTS": True}},
    SSEHUB={},
    LOGGING_CONFIG=None,
)

from ssehub.integrations import django as sse  # noqa: E402
from ssehub.integrations.django import site as sse_site  # noqa: E402
from ssehub.integrations.django import views  # noqa: E402

Serve = Callable[[Any], Any]


def ask_the_database() -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("select 1")


@views.stream
def mine(request: HttpRequest) -> Any:
    ask_the_database()
    name = request.GET.get("name")
    if not name:
        raise PermissionDenied
    if name == "nobody":
        return HttpResponse("gone", status=410)
    return {"zone": ["news", f"user {name}"], "client_id": name, "metadata": name}


@views.stream
def own(request: HttpRequest) -> Any:
    return request.GET.get("zone", "a")


def plain(request: HttpRequest) -> Any:
    return views.connect(request, zone=request.GET.get("zone", "a"), client_id=request.GET.get("me"))


def news(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"id": sse_site.hub().broadcast(Message(request.GET["text"]), zone="news").id})


@views.stream
def of_the_cookie(request: HttpRequest) -> dict[str, str]:
    return {"client_id": request.COOKIES["name"]}


def in_use(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"open": len(counted)})


urlpatterns = [path("events", views.events), path("mine", mine), path("news", news), path("open", in_use)]
urlpatterns += [path("own", own), path("plain", plain)]
urlpatterns += [path("shared.js", views.script), path("cookie", of_the_cookie)]
counted: set[object] = set()


@pytest.fixture
def port(site: Serve, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Give a function that serves the site with settings, and returns its port."""
    monkeypatch.setattr(sse_site, "_hub", None)

    def serve(**options: Any) -> int:
        monkeypatch.setattr(settings, "SSEHUB", {"HEARTBEAT": 0.1, **options})
        return int(site(get_wsgi_application()).port)

    yield serve
    sse_site.hub().close()


def test_a_stream_passes_the_gzip_middleware_at_once(port: Callable[..., int]) -> None:
    here = port()
    stream = Stream(here, "/mine?name=ada", {"Accept-Encoding": "gzip"})
    assert stream.opened()["client_id"] == "ada"
    assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert stream.response.headers["Content-Encoding"] == "identity"
    status, answer = call(here, "GET", "/news?text=hello")
    message = stream.message()
    assert status == 200 and (message.data, message.id) == ("hello", answer["id"])
    sse_site.hub().send("ada", "to ada")
    assert stream.message().data == "to ada" and sse_site.hub().get_metadata("ada") == "ada"
    stream.close()
    until(lambda: not sse_site.hub().connections())


@pytest.mark.parametrize(("setting", "detached"), [({}, 0), ({"DETACH": True}, 1)])
def test_a_setting_says_whether_streams_leave_the_servers_threads(
    setting: dict[str, Any], detached: int, port: Callable[..., int]
) -> None:
    stream = Stream(port(**setting), "/mine?name=ada", {"Accept-Encoding": "gzip"})
    stream.opened()
    until(lambda: sse_site.hub().stats()["taken_over"] == 1)
    assert sse_site.hub().stats()["detached"] == detached
    sse_site.hub().send("ada", "to ada")
    assert stream.message().data == "to ada"
    stream.close()
    until(lambda: not sse_site.hub().connections())


def test_a_page_of_a_named_origin_that_uses_fetch_may_come_back(port: Callable[..., int]) -> None:
    origin = "https://app.example"
    port(ORIGINS=[origin], AUTHORIZE=lambda *asked: False)
    page = Client()
    for path_ in ("/events", "/own"):
        answer = page.options(path_, headers={"Origin": origin, "Access-Control-Request-Method": "GET"})
        assert answer.status_code == 204 and answer.headers["Access-Control-Allow-Origin"] == origin
        assert "last-event-id" in answer.headers["Access-Control-Allow-Headers"]
        assert page.options(path_, headers={"Origin": "https://evil.example"}).status_code == 405
        assert page.options(path_).status_code == 405
    refused = page.get("/events", headers={"Origin": origin})
    assert refused.status_code == 403 and refused.headers["Access-Control-Allow-Origin"] == origin
    assert refused.headers["Cache-Control"] == "no-store" and refused.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("query", ["zone=", "zone=a%00", "zone=" + "z" * 256, "me=", "me=a%0Ab"])
def test_names_that_a_stream_cannot_have_are_a_400(port: Callable[..., int], query: str) -> None:
    here = port(AUTHORIZE=lambda *asked: True, CLIENT_ID=lambda request: request.GET.get("me"))
    for path_ in ("/events", "/own", "/plain"):
        assert call(here, "GET", f"{path_}?{query}")[0] == 400
    assert sse_site.hub().stats()["opened"] == 0


def test_a_mistake_of_the_sites_own_functions_is_not_the_clients(port: Callable[..., int]) -> None:
    def fail(*given: Any) -> Any:
        raise ValueError("secret")

    logging.getLogger("django.request").disabled = True
    for options, path_ in (
        ({"AUTHORIZE": fail}, "/events"),
        ({"CLIENT_ID": fail}, "/events"),
        ({"CLIENT_ID": fail}, "/own"),
    ):
        status, answer = call(port(**options), "GET", path_)
        assert status == 500 and b"secret" not in answer
        sse_site.hub().close()
        sse_site._hub = None


def test_what_a_view_refuses_is_refused_before_anything_is_registered(port: Callable[..., int]) -> None:
    here = port()
    assert call(here, "GET", "/mine")[0] == 403
    assert call(here, "GET", "/mine?name=nobody") == (410, b"gone")
    assert call(here, "POST", "/mine?name=ada")[0] == 405
    assert call(here, "HEAD", "/mine?name=ada") == (200, b"")
    assert sse_site.hub().stats()["opened"] == 0


def test_the_ready_made_view_asks_authorize(port: Callable[..., int]) -> None:
    asked: list[tuple[str, list[str], str | None]] = []

    def authorize(request: HttpRequest, action: str, zones: list[str], client_id: str | None) -> bool:
        asked.append((action, zones, client_id))
        return zones == ["a"]

    here = port(AUTHORIZE=authorize, CLIENT_ID=lambda request: request.GET.get("me"), ORIGINS=["https://app.example"])
    assert call(here, "GET", "/events?zone=b&me=ada")[0] == 403 and asked == [("subscribe", ["b"], "ada")]
    stream = Stream(here, "/events?zone=a&me=ada", {"Origin": "https://app.example"})
    assert stream.opened()["client_id"] == "ada"
    assert stream.response.headers["Access-Control-Allow-Origin"] == "https://app.example"
    stream.close()


def test_authorize_says_how_long_a_stream_may_last(port: Callable[..., int]) -> None:
    stream = Stream(port(AUTHORIZE=lambda *asked: timedelta(seconds=0.1)), "/events")
    assert [event.event for event in stream.rest()] == ["ssehub.open"]
    stream.close()


def test_without_authorize_only_the_default_zone_is_open(port: Callable[..., int]) -> None:
    here = port()
    assert call(here, "GET", "/events?zone=secret")[0] == 403
    stream = Stream(here, "/events")
    stream.opened()
    stream.close()


def test_twenty_streams_hold_no_database_connection_though_hooks_ask_too(
    port: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = type(connections["default"])
    connect, close = backend.connect, backend.close
    monkeypatch.setattr(backend, "connect", lambda self: (counted.add(self), connect(self))[1])
    monkeypatch.setattr(backend, "close", lambda self: (counted.discard(self), close(self))[1])
    here = port()
    sse_site.hub().on_connection(lambda connection: ask_the_database())
    sse_site.hub().on_disconnect(lambda connection: ask_the_database())
    streams = [Stream(here, f"/mine?name={n}") for n in range(20)]
    for stream in streams:
        stream.opened()
    until(lambda: not counted)
    for stream in streams:
        stream.close()
    until(lambda: not sse_site.hub().connections() and not counted)


@pytest.mark.parametrize(
    "options",
    [
        {"HEARTBEET": 1},
        {"ORIGINS": ["app.example"]},
        {"AUTHORIZE": "no.such.function"},
        {"HEARTBEAT": -1},
        {"LOG": "nothing://x"},
    ],
)
def test_settings_that_are_unfit_are_refused(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    monkeypatch.setattr(sse_site, "_hub", None)
    monkeypatch.setattr(settings, "SSEHUB", options)
    with pytest.raises(ImproperlyConfigured, match="SSEHUB"):
        sse_site.hub()


def test_the_command_sends_through_a_shared_log(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, make_hub: Callable[..., Hub]
) -> None:
    name = secrets.token_hex(4)
    monkeypatch.setattr(sse_site, "_hub", None)
    monkeypatch.setattr(settings, "SSEHUB", {"LOG": redis_server.url, "LOG_OPTIONS": {"name": name}})
    said = io.StringIO()
    call_command("ssehub_send", "hello", "--zone", "a", "--event", "greeting", stdout=said)
    log = RedisLog(redis_server.url, name=name)
    make_hub(log).cursor()
    (entry,) = log.read(log.oldest(), 10).entries
    assert (entry.packet.message, entry.packet.zone) == (Message("hello", "greeting"), "a")
    assert said.getvalue() == f"{entry.id}\n"
    monkeypatch.setattr(sse_site, "_hub", None)
    monkeypatch.setattr(settings, "SSEHUB", {})
    with pytest.raises(CommandError, match="LOG"):
        call_command("ssehub_send", "hello")


def test_check_refuses_a_log_that_is_no_address() -> None:
    code = (
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['ssehub.integrations.django'], SSEHUB={'LOG': 'localhost:6379'})\n"
        "from django.core.management import execute_from_command_line\n"
        "execute_from_command_line(['manage.py', 'check'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode != 0 and "ImproperlyConfigured: settings.SSEHUB: no log has" in done.stderr


def test_the_hub_is_imported_from_the_package_and_is_anew_where_a_test_overrides_the_settings(
    make_hub: Callable[..., Hub],
) -> None:
    own = make_hub()
    with override_settings(SSEHUB={"HUB": own, "HEARTBEAT": 3}):
        assert sse.hub() is own and sse.hub is sse_site.hub
    with override_settings(SSEHUB={"HEARTBEAT": 7}):
        assert sse.hub().settings.heartbeat == 7
    assert sse.hub().settings.heartbeat == 15
    with pytest.raises(ImproperlyConfigured, match="HUB must be a Hub"), override_settings(SSEHUB={"HUB": "x"}):
        sse.hub()
    sse.hub().close()


def test_a_test_case_sees_what_its_views_send_and_nothing_warns(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse_site, "_hub", None)

    class Tests(TestCase):
        def test_news(self) -> None:
            with testing.capture(sse.hub()) as sent:
                assert self.client.get("/news?text=hello").status_code == 200
            assert sent.events("news")[0].data == "hello"

        def test_on_commit(self) -> None:
            with testing.capture(sse.hub()) as sent:
                with self.captureOnCommitCallbacks(execute=True):
                    transaction.on_commit(lambda: sse.hub().broadcast("committed"))
                    assert not sent.events()
                assert sent.events()[0].data == "committed"

        def test_stream(self) -> None:
            response = self.client.get("/mine?name=ada")
            assert b"ssehub.open" in next(iter(response.streaming_content))
            response.close()

    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Tests)
    result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
    assert result.wasSuccessful() and result.testsRun == 3, result.errors + result.failures
    assert caplog.records == []
    sse.hub().close()


def test_a_message_is_sent_after_the_commit_and_not_after_a_rollback(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse_site, "_hub", None)
    get_wsgi_application()
    try:
        with testing.capture(sse.hub()) as sent:
            with transaction.atomic():
                sse.after_commit({"order": 7}, event="order", zone="orders")
                with contextlib.suppress(ZeroDivisionError), transaction.atomic():
                    sse.after_commit("of a savepoint that is rolled back")
                    raise ZeroDivisionError
                assert not sent.events()
            with contextlib.suppress(ZeroDivisionError), transaction.atomic():
                sse.after_commit("rolled back")
                raise ZeroDivisionError
            sse.after_commit("without a transaction")
            assert [event.data for event in sent.events()] == ['{"order":7}', "without a transaction"]
        with pytest.raises(TypeError, match="None"):
            sse.after_commit(None)
        with transaction.atomic():
            sse.after_commit("late")
            sse.hub().close()
        assert "not sent after its transaction was committed" in caplog.text
    finally:
        sse.hub().close()
        connections.close_all()


def test_a_stream_of_a_site_takes_the_cookies_of_the_test_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_site, "_hub", None)
    client = Client()
    client.cookies["name"] = "ada"
    with testing.stream(get_wsgi_application(), "/cookie", cookies=client.cookies) as events:
        assert events.opened["client_id"] == "ada"
    sse.hub().close()


def test_a_request_of_asgi_is_refused_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_site, "_hub", None)
    scope = {"type": "http", "method": "GET", "path": "/mine", "query_string": b"name=ada", "headers": []}
    request = ASGIRequest(scope, io.BytesIO())
    with pytest.raises(
        ImproperlyConfigured, match=r"a stream needs a WSGI server, but the request is an ASGIRequest.*wsgi\.py"
    ):
        mine(request)
    with pytest.raises(TypeError, match="expected a request of a WSGI server, or its environ, not"):
        sse.hub().connect(request)
    sse.hub().close()


def test_the_script_for_tabs_that_share_a_stream_is_a_view() -> None:
    from tests.unit.wsgi.test_script import check

    check(get_wsgi_application(), "/shared.js")


def test_a_stream_of_a_site_is_tested_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_site, "_hub", None)
    with testing.stream(get_wsgi_application(), "/mine?name=ada") as events, testing.capture(sse_site.hub()) as sent:
        sse_site.hub().broadcast("hello", zone="news")
        assert next(events).data == sent.events("news")[0].data == "hello"
        assert events.opened["client_id"] == "ada"
    sse_site.hub().close()
