"""Flask: templates that are sent, and the addresses of streams in pages."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g, render_template_string, request, session
from jinja2 import DictLoader

from ssehub import testing
from ssehub.html import turbo
from ssehub.integrations.flask import SSEHub
from tests.docs.test_docs import DOCS, blocks
from tests.streams import Stream, call

Made = tuple[Flask, SSEHub]
TEMPLATES = {
    "row.html": '<li id="row-{{ id }}">\n{{ text }}</li>',
    "who.html": "{{ session.user }}|{{ g.user }}|{{ request.path }}|{{ greeting }}|{{ url_for('show', number=7) }}",
    "row.txt": "{{ text }}",
}


@pytest.fixture
def make() -> Iterator[Callable[..., Made]]:
    """Give a function that makes an application with a page and the stream at /events."""
    made: list[Flask] = []

    def make_app(page: str = "", *, factory: bool = False, **options: Any) -> Made:
        app = Flask(__name__)
        app.config.update(SECRET_KEY="secret", SSEHUB_URL="/events", **options.pop("settings", {}))
        app.jinja_loader = DictLoader(TEMPLATES)  # type: ignore[assignment]
        sse = SSEHub(None if factory else app, **options)
        if factory:
            sse.init_app(app)
        app.add_url_rule("/", "page", lambda: render_template_string(page, cursor=sse.cursor("news")))
        app.add_url_rule("/show/<number>", "show", lambda number: number)

        @app.get("/login/<user>")
        def login(user: str) -> str:
            session["user"] = user
            return user

        made.append(app)
        return app, sse

    yield make_app
    for app in made:
        app.extensions["ssehub"].close()


def address(app: Flask, **cookies: str) -> str:
    """Return the address in the application's page."""
    text = app.test_client().get("/", headers=cookies).text
    return html.unescape(text)


def answer(app: Flask, url: str) -> tuple[int, str]:
    """Ask for the beginning of a stream."""
    with app.test_client() as client:
        response = client.head(url)
        error = client.get(url).text if response.status_code >= 400 else ""
        return response.status_code, error


def test_a_template_is_rendered_and_sent(make: Callable[..., Made]) -> None:
    _, sse = make()
    with testing.capture(sse.hub) as sent:
        sse.render("row.html", zone="news", event="row", id=1, text="<script>")
        sse.render("row.html", client_id="ada", into=turbo.append("list"), id=2, text="x")
    one, two = sent.packets()
    assert one.message.encode() == b'event: row\ndata: <li id="row-1">\ndata: &lt;script&gt;</li>\n\n'
    assert one.zone == "news" and one.broadcast
    assert two.message == turbo.append("list", '<li id="row-2">\nx</li>') and two.client_id == "ada"
    with pytest.raises(ValueError, match="leave event out"):
        sse.render("row.html", event="row", into=turbo.append("list"))


def test_a_fragment_is_the_same_whoever_causes_it(make: Callable[..., Made]) -> None:
    app, sse = make(client_id=lambda: session.get("user"))
    app.context_processor(lambda: {"greeting": f"hello {session.get('user')}"})
    seen: list[str | None] = []

    @app.get("/send")
    def send() -> str:
        g.user = "ada"
        seen.append(sse.fragment("who.html").data)
        return f"{g.user} {request.path}"

    client = app.test_client()
    client.get("/login/ada")
    assert client.get("/send").text == "ada /send"
    with app.app_context():
        seen.append(sse.fragment("who.html").data)
    seen.append(sse.fragment("who.html").data)
    assert seen == ["||/|hello None|/show/7"] * 3


def test_a_fragment_needs_an_application(make: Callable[..., Made]) -> None:
    app, sse = make(factory=True)
    with pytest.raises(RuntimeError, match="no application"):
        sse.fragment("row.txt")
    with app.app_context():
        assert sse.fragment("row.txt", text="a").data == "a"


@pytest.mark.parametrize(
    "settings",
    [
        {"APPLICATION_ROOT": "/shop"},
        {"APPLICATION_ROOT": "/shop", "SERVER_NAME": "shop.example"},
        {"APPLICATION_ROOT": "/shop", "TRUSTED_HOSTS": [".shop.example"]},
    ],
)
def test_addresses_in_a_fragment_have_the_applications_root(
    settings: dict[str, Any], make: Callable[..., Made]
) -> None:
    _, sse = make(settings=settings)
    assert (sse.fragment("who.html").data or "").endswith("|/shop/show/7")


def test_a_page_names_its_stream_in_the_form_of_its_library(make: Callable[..., Made]) -> None:
    page = "{% for kind in ('turbo', 'htmx', 'htmx4', 'datastar') %}{{ sse_source('news', kind=kind) }}\n{% endfor %}"
    app, _ = make(page)
    one, two, three, four = app.test_client().get("/").text.splitlines()
    assert re.fullmatch(r'<turbo-stream-source src="/events\?zone=news&amp;\S+"></turbo-stream-source>', one)
    assert re.match(r'hx-ext="sse" sse-connect="/events\?zone=news&amp;signature=[^"]+&amp;lastEventId=\S+" hx-', two)
    assert re.match(r'hx-sse:connect="/events\?zone=news&amp;\S+" hx-on:ssehub.gap="location.reload\(\)"', three)
    assert re.match(r'data-init="@get\(&#x27;/events\?zone=news&amp;\S+&#x27;, \{retry: ', four)
    app, _ = make("{{ sse_source(kind='react') }}")
    app.testing = True
    with pytest.raises(ValueError, match="kind must be one of turbo, datastar, htmx, htmx4, not 'react'"):
        app.test_client().get("/")


def test_nothing_falls_between_the_page_and_its_stream(make: Callable[..., Made], site: Any) -> None:
    app, sse = make("{{ sse_url(['news', 'a & b'], cursor=cursor) }}")
    here = site(app)
    sse.broadcast("before", zone="news")
    url = html.unescape(call(here.port, "GET", "/")[1].decode())
    sse.broadcast("between", zone="a & b")
    stream = here.stream(url)
    stream.opened()
    sse.broadcast("after", zone="news")
    assert stream.data(2) == ["between", "after"]
    stream.close()


def test_only_what_was_signed_may_be_followed(make: Callable[..., Made]) -> None:
    app, _ = make("{{ sse_url(['news', 'a']) }}")
    url = address(app)
    assert answer(app, url)[0] == 200
    changed = [
        url.replace("zone=a", "zone=b"),
        url.replace("zone=a", "zone=a&zone=b"),
        url.replace("zone=news&zone=a", "zone=a&zone=news"),
        url.replace("zone=a&", ""),
        re.sub("signature=.", "signature=~", url),
        re.sub("signature=[^&]*", "signature=", url),
        re.sub("signature=[^&]*", "signature=%ED%A0%80.a.b", url),
    ]
    for wrong in changed:
        status, error = answer(app, wrong)
        assert status == 403 and "the signature of the address is not valid" in error, wrong
    for unsigned in ("/events?zone=news", re.sub("&signature=[^&]*", "", url)):
        assert answer(app, unsigned) == (403, answer(app, "/events?zone=x")[1])
    assert answer(app, "/events")[0] == 200
    app.secret_key = "another"
    assert answer(app, url)[0] == 403
    app.secret_key = None
    assert answer(app, url)[0] == 403


def test_a_signature_is_for_one_client(make: Callable[..., Made], site: Any) -> None:
    app, _ = make("{{ sse_url('news') }}", client_id=lambda: session.get("user"))
    ada, bob = app.test_client(), app.test_client()
    ada.get("/login/ada")
    bob.get("/login/bob")
    url = html.unescape(ada.get("/").text)
    assert ada.head(url).status_code == 200
    assert bob.head(url).status_code == app.test_client().head(url).status_code == 403


def test_a_signature_expires_and_ends_its_stream(
    make: Callable[..., Made], site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, _ = make("{{ sse_url('news') }}", settings={"SSEHUB_SIGNATURE_AGE": 1})
    here = site(app)
    url = address(app)
    began = time.monotonic()
    stream = Stream(here.port, url)
    stream.rest()
    assert time.monotonic() - began < 8
    stream.close()
    now = time.time()
    with monkeypatch.context() as patched:
        patched.setattr("itsdangerous.timed.time.time", lambda: now + 60)
        ahead = address(app)
    assert answer(app, ahead)[0] == 200
    with monkeypatch.context() as patched:
        patched.setattr("itsdangerous.timed.time.time", lambda: now - 60)
        late = address(app)
    status, error = answer(app, late)
    assert status == 403 and "expired: load the page again" in error


def test_an_older_key_is_still_accepted(make: Callable[..., Made]) -> None:
    app, _ = make("{{ sse_url('news') }}")
    url = address(app)
    app.config.update(SECRET_KEY="newer", SECRET_KEY_FALLBACKS=["secret"])
    assert answer(app, url)[0] == 200
    app.config.update(SECRET_KEY_FALLBACKS=[])
    assert answer(app, url)[0] == 403 and answer(app, address(app))[0] == 200


def test_what_needs_no_signature_has_none(make: Callable[..., Made]) -> None:
    asked: list[Any] = []

    def check(*arguments: Any) -> bool:
        asked.append(arguments[2])
        return False

    app, _ = make("{{ sse_url('news') }}", authorize=check)
    url = address(app)
    assert "signature" not in url
    signed = address(make("{{ sse_url('news') }}")[0])
    assert answer(app, url)[0] == answer(app, signed)[0] == 403 and asked
    assert "signature" not in address(make("{{ sse_url() }}")[0])
    own = address(make("{{ sse_url('news', url='/mine?a=b') }}")[0])
    assert own.startswith("/mine?a=b&zone=news&lastEventId=")


def test_what_is_missing_is_named(make: Callable[..., Made]) -> None:
    for settings, text in (({"SECRET_KEY": None}, "set app.secret_key"), ({"SSEHUB_URL": None}, "set SSEHUB_URL")):
        app, _ = make("{{ sse_url('news') }}")
        app.config.update(settings)
        app.testing = True
        with pytest.raises(RuntimeError, match=text):
            app.test_client().get("/")
    for age, error in ((0, ValueError), ("1", TypeError), (1.5, TypeError)):
        app = Flask(__name__)
        app.config["SSEHUB_SIGNATURE_AGE"] = age
        with pytest.raises(error, match="SIGNATURE_AGE"):
            SSEHub(app)


def test_a_template_for_a_text_is_not_escaped_by_flask(make: Callable[..., Made], tmp_path: Path) -> None:
    _, sse = make()
    assert sse.fragment("row.txt", text="<b>").data == "<b>"


def test_the_recipe_of_the_documentation(site: Any) -> None:
    text = (DOCS / "html.rst").read_text()
    row, shown = blocks(text, "html")[:2]
    scope: dict[str, Any] = {"__name__": "app"}
    exec(blocks(text, "python")[0], scope)
    scope["app"].jinja_loader = DictLoader({"task.html": row, "page.html": shown})
    here = site(scope["app"])
    call(here.port, "POST", "/tasks", {"text": "<old>"})
    answered = call(here.port, "GET", "/")[1].decode()
    assert '<li id="task-0">&lt;old&gt;</li>' in answered
    stream = here.stream(html.unescape(re.findall(r'<turbo-stream-source src="(.*?)">', answered)[0]))
    stream.opened()
    call(here.port, "POST", "/tasks", {"text": "<new>"})
    assert stream.data(1) == [turbo.append("tasks", '<li id="task-1">&lt;new&gt;</li>').data]
    stream.close()
    scope["sse"].hub.close()
