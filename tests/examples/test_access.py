"""The example of authorisation: who is refused, who is let in, and the page that fetches a fresh token."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import requests
from flask import Flask
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from werkzeug.wrappers import Request, Response

from ssehub import Client, Hub
from tests.browser import Tab
from tests.servers import ROOT
from tests.streams import GUARD, until

FOLDER = ROOT / "examples" / "access"
OTHER = "https://other.example"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("example_access", FOLDER / "app.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


class Running:
    """The application, on a port of its own."""

    def __init__(self, app: Flask, site: Any) -> None:
        self.app = app
        self.hub: Hub = app.extensions["ssehub"]
        self.site = site
        self.url = f"http://127.0.0.1:{site.port}"

    def cookie(self, user: str, password: str) -> str:
        """Sign in."""
        with requests.Session() as session:
            answer = session.post(f"{self.url}/login", {"user": user, "password": password}, timeout=GUARD)
            assert answer.status_code == 200
            return "; ".join(f"{one.name}={one.value}" for one in session.cookies)

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Ask for something that is refused."""
        with requests.get(self.url + path, headers=headers, timeout=GUARD, stream=True) as answer:
            return answer.status_code, "" if answer.ok else answer.json()["error"]

    def token(self, cookie: str, *rooms: str) -> requests.Response:
        headers = {"Cookie": cookie, "Origin": OTHER}
        return requests.post(f"{self.url}/token", {"room": rooms}, headers=headers, timeout=GUARD)

    def say(self, cookie: str, room: Any, text: Any) -> requests.Response:
        json = {"room": room, "text": text}
        return requests.post(f"{self.url}/say", json=json, headers={"Cookie": cookie}, timeout=GUARD)


@pytest.fixture
def start(example: ModuleType, site: Callable[[Any], Any]) -> Iterator[Callable[..., Running]]:
    """Give a function that runs the application."""
    with contextlib.ExitStack() as stack:

        def run(**options: Any) -> Running:
            for user in example.USERS.values():
                user["signed_out"] = 0.0
            app = example.create_app(**{"other_site": OTHER, "SSEHUB_HEARTBEAT": 0.5, **options})
            stack.callback(app.extensions["ssehub"].close)
            return Running(app, site(app))

        yield run


class _Yesterday(TimestampSigner):
    def get_timestamp(self) -> int:
        return super().get_timestamp() - 86_400


def test_whoever_may_not_is_refused_before_anything_is_registered(start: Callable[..., Running]) -> None:
    here = start()
    bob = here.cookie("bob", "babbage")
    token = here.token(bob, "garden").json()["token"]
    content = {"user": "ada", "rooms": ["kitchen"]}
    key = here.app.secret_key
    expired = URLSafeTimedSerializer(key, salt="stream", signer=_Yesterday).dumps(content)
    forged = URLSafeTimedSerializer("another key", salt="stream").dumps(content)
    for_another_purpose = URLSafeTimedSerializer(key, salt="reset the password").dumps(content)

    assert here.get("/events?zone=garden") == (401, "sign in, or bring a token")
    assert here.get("/events?zone=garden", Cookie="access=forged")[0] == 401
    assert here.get("/events?zone=kitchen", Cookie=bob)[0] == 403
    assert here.get("/events?zone=garden&zone=kitchen", Cookie=bob)[0] == 403
    assert here.get("/events", Cookie=bob)[0] == 403
    assert here.get(f"/events?zone=kitchen&token={expired}") == (401, "the token has expired")
    for wrong in (forged, for_another_purpose, f"{token}x", "", "%00"):
        assert here.get(f"/events?zone=garden&token={wrong}", Cookie=bob) == (401, "the token is not one of ours")
    assert here.get(f"/events?zone=kitchen&token={token}")[0] == 403
    assert here.get(f"/events?zone=garden&zone=kitchen&token={token}")[0] == 403
    assert here.hub.stats()["opened"] == 0 and not here.hub.connections()

    assert here.token("", "garden").status_code == 401
    assert here.token(bob, "garden", "kitchen").status_code == 403
    assert here.say(bob, "kitchen", "hello").status_code == 403
    assert here.say(bob, ["garden"], "hello").status_code == here.say(bob, "garden", 7).status_code == 400
    assert here.say(bob, "garden", "\ud800").status_code == 400
    form = requests.post(f"{here.url}/say", {"room": "garden", "text": "x"}, headers={"Cookie": bob}, timeout=GUARD)
    assert form.status_code == 415
    wrong_password = requests.post(f"{here.url}/login", {"user": "ada", "password": "babbage"}, timeout=GUARD)
    assert wrong_password.status_code == 401 and "Set-Cookie" not in wrong_password.headers


def test_cookie_and_token_open_streams_of_the_same_user_and_signing_out_ends_them(
    start: Callable[..., Running],
) -> None:
    here = start()
    ada, bob = here.cookie("ada", "lovelace"), here.cookie("bob", "babbage")
    by_cookie = here.site.stream("/events?zone=garden&zone=kitchen", Cookie=ada)
    token = here.token(ada, "garden").json()["token"]
    by_token = here.site.stream(f"/events?zone=garden&token={token}")
    of_bob = here.site.stream("/events?zone=garden", Cookie=bob)
    assert [one.opened()["client_id"] for one in (by_cookie, by_token, of_bob)] == ["ada", "ada", "bob"]
    assert here.say(ada, "kitchen", "psst").ok and here.say(bob, "garden", "hello").ok
    assert [message["text"] for message in (by_cookie.message().json(), by_cookie.message().json())] == [
        "psst",
        "hello",
    ]
    assert by_token.message().json() == of_bob.message().json() == {"room": "garden", "user": "bob", "text": "hello"}
    answer = requests.post(f"{here.url}/logout", headers={"Cookie": ada}, timeout=GUARD)
    assert answer.ok
    assert not [event for event in by_cookie.rest() + by_token.rest() if not event.event.startswith("ssehub.")]
    assert [one.client_id for one in here.hub.connections()] == ["bob"]
    assert here.get(f"/events?zone=garden&token={token}") == (401, "the user has signed out since")
    for stream in (by_cookie, by_token, of_bob):
        stream.close()


def test_only_the_named_origin_may_read_streams_and_tokens(start: Callable[..., Running]) -> None:
    here = start()
    ada = here.cookie("ada", "lovelace")
    for origin, expected in ((OTHER, [OTHER, "true"]), ("https://evil.example", [None, None]), (None, [None, None])):
        headers = {"Cookie": ada} | ({"Origin": origin} if origin else {})
        stream = here.site.stream("/events?zone=garden", **headers)
        token = requests.post(f"{here.url}/token", {"room": "garden"}, headers=headers, timeout=GUARD)
        for answer in (stream.response.headers, token.headers):
            names = ("Access-Control-Allow-Origin", "Access-Control-Allow-Credentials")
            assert [answer.get(name) for name in names] == expected
            assert "Origin" in answer["Vary"]
        stream.close()


def test_a_script_asks_for_a_token_at_each_attempt(start: Callable[..., Running]) -> None:
    here = start()
    ada = here.cookie("ada", "lovelace")
    asked = []

    def url() -> str:
        asked.append(here.token(ada, "garden").json()["token"])
        return f"{here.url}/events?zone=garden&token={asked[-1]}"

    with Client(url, reconnect_delay=0.01).start() as client:
        messages = client.subscribe()
        until(lambda: here.hub.is_present("ada"))
        client.restart()
        until(lambda: here.hub.stats()["opened"] == 2)
        assert len(asked) == 2
        here.say(ada, "garden", "hello")
        assert messages.get(GUARD).json()["text"] == "hello"


def test_in_a_browser_the_other_sites_page_gets_a_fresh_token_and_misses_nothing(
    start: Callable[..., Running], site: Callable[[Any], Any], open_tab: Callable[[str], Tab]
) -> None:
    hub_url = ""

    @Request.application
    def other(request: Request) -> Response:
        name = request.path.lstrip("/") or "index.html"
        content = (FOLDER / "other" / name).read_text().replace("http://127.0.0.1:8000", hub_url)
        return Response(content, mimetype="text/javascript" if name.endswith("js") else "text/html")

    other_url = f"http://127.0.0.1:{site(other).port}"
    here = start(other_site=other_url, SSEHUB_RETRY=50)
    hub_url = here.url

    page = open_tab(f"{here.url}/")
    page.fill("[name=user]", "ada")
    page.fill("[name=password]", "lovelace")
    page.click("button")
    until(lambda: page.text("#state") == "live")
    tab = open_tab(other_url)
    until(lambda: tab.text("#state") == "live")
    page.fill("[name=text]", "<b>hello</b>")
    page.run("document.querySelector('select').value = 'garden'")
    page.click("#say button")
    tab.wait_for("#messages li", "ada: <b>hello</b>")
    page.wait_for("#messages li", "ada in the garden: <b>hello</b>")

    here.app.config["TOKEN_AGE"] = -1  # every token has expired
    here.hub.disconnect("ada")
    until(lambda: tab.text("#state").startswith("refused"))
    here.hub.broadcast('{"user": "bob", "text": "while you were out"}', zone="garden")
    here.app.config["TOKEN_AGE"] = 60
    tab.wait_for("#messages li", "bob: while you were out", "ada: <b>hello</b>")
    assert not tab.was_reloaded

    with_cookie = "new EventSource(arguments[0], {withCredentials: true}).onopen = () => window.cookieIsEnough = true"
    tab.run(with_cookie, f"{here.url}/events?zone=kitchen")
    until(lambda: tab.run("return window.cookieIsEnough"))

    page.run("document.querySelector('form').submit()")  # signs out
    until(lambda: page.text("h1") == "Sign in")
    until(lambda: tab.text("#state").startswith("no token"))
    assert not here.hub.is_present("ada")
