"""Django: templates that are sent, and the addresses of streams in pages."""

from __future__ import annotations

import html
import re
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template import engines
from django.test import Client, override_settings
from django.urls import path

from ssehub import testing
from ssehub.html import turbo
from ssehub.integrations import django as sse
from ssehub.integrations.django import site as sse_site
from ssehub.integrations.django import views
from tests.docs.test_docs import DOCS, blocks

# The settings are those of the other module: Django has one configuration in a process.
from tests.integration import test_django as other

other.django.setup()
TEMPLATES = {
    "row.html": '<li id="row-{{ id }}">\n{{ text }}</li>',
    "who.html": "{{ user }}|{{ request.path }}|{{ csrf_token }}",
    "url.html": "{% load ssehub %}{% sse_url 'news' 'a' %}",
    "public.html": "{% load ssehub %}{% sse_url %}",
    "own.html": "{% load ssehub %}{% sse_url 'news' url='/mine?a=b' cursor=cursor %}",
    "sources.html": "{% load ssehub %}{% for kind in kinds %}{% sse_source 'news' kind=kind %}\n{% endfor %}",
}
ENGINE = {
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", TEMPLATES)]},
}


def page(request: HttpRequest, name: str) -> HttpResponse:
    kinds = ["turbo", "htmx", "htmx4", "datastar"]
    return render(request, f"{name}.html", {"kinds": kinds, "cursor": sse.hub().cursor("news")})


urlpatterns = [path("events", views.events), path("page/<name>", page)]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Client]]:
    """Give a function that sets the site's settings, and returns a client."""
    monkeypatch.setattr(sse_site, "_hub", None)
    with override_settings(TEMPLATES=[ENGINE], ROOT_URLCONF=__name__):

        def make(**options: Any) -> Client:
            monkeypatch.setattr(other.settings, "SSEHUB", {"HEARTBEAT": 0.1, **options})
            return Client()

        yield make
        sse_site.hub().close()


def address(client: Client, name: str = "url") -> str:
    """Return the address in a page."""
    return html.unescape(client.get(f"/page/{name}").content.decode())


def answer(client: Client, url: str) -> tuple[int, str]:
    """Ask for a stream."""
    response = client.head(url)
    return response.status_code, client.get(url).content.decode() if response.status_code >= 400 else ""


def test_a_template_is_rendered_and_sent(configure: Callable[..., Client]) -> None:
    configure()
    with testing.capture(sse.hub()) as sent:
        sse.render("row.html", {"id": 1, "text": "<script>"}, zone="news", event="row")
        sse.render(["none.html", "row.html"], {"id": 2, "text": "x"}, client_id="ada", into=turbo.append("list"))
        with transaction.atomic():
            sse.after_commit(sse.fragment("row.html", {"id": 3}), zone="news")
            assert len(sent.packets()) == 2
    one, two, three = sent.packets()
    assert one.message.encode() == b'event: row\ndata: <li id="row-1">\ndata: &lt;script&gt;</li>\n\n'
    assert one.zone == "news" and one.broadcast
    assert two.message == turbo.append("list", '<li id="row-2">\nx</li>') and two.client_id == "ada"
    assert "row-3" in (three.message.data or "")
    with pytest.raises(ValueError, match="leave event out"):
        sse.render("row.html", event="row", into=turbo.append("list"))
    assert sse.fragment("who.html").data == "||"


def test_a_page_names_its_stream_in_the_form_of_its_library(configure: Callable[..., Client]) -> None:
    one, two, three, four = configure().get("/page/sources").content.decode().splitlines()
    assert re.fullmatch(r'<turbo-stream-source src="/events\?zone=news&amp;\S+"></turbo-stream-source>', one)
    assert re.match(r'hx-ext="sse" sse-connect="/events\?zone=news&amp;signature=[^"]+&amp;lastEventId=\S+" hx-', two)
    assert re.match(r'hx-sse:connect="/events\?zone=news&amp;\S+" hx-on:ssehub.gap="location.reload\(\)"', three)
    assert re.match(r'data-init="@get\(&#x27;/events\?zone=news&amp;\S+&#x27;, \{retry: ', four)


def test_nothing_falls_between_the_page_and_its_stream(configure: Callable[..., Client], site: Any) -> None:
    client = configure()
    sse.hub().broadcast("before", zone="news")
    url = address(client)
    sse.hub().broadcast("between", zone="a")
    stream = site(get_wsgi_application()).stream(url)
    stream.opened()
    sse.hub().broadcast("after", zone="news")
    assert stream.data(2) == ["between", "after"]
    stream.close()


def test_only_what_was_signed_may_be_followed(configure: Callable[..., Client]) -> None:
    client = configure()
    url = address(client)
    assert answer(client, url)[0] == 200
    for wrong in (
        url.replace("zone=a", "zone=b"),
        url.replace("zone=news&zone=a", "zone=a&zone=news"),
        url.replace("zone=a&", ""),
        re.sub("signature=[^&]*", "signature=", url),
        re.sub("signature=[^&]*", "signature=a%3Ab", url),
        re.sub("signature=", "signature=x%3A", url),
        re.sub("signature=[^&]*", "signature=%ED%A0%80", url),
    ):
        status, error = answer(client, wrong)
        assert status == 403 and "the signature of the address is not valid" in error, wrong
    for unsigned in ("/events?zone=news", re.sub("&signature=[^&]*", "", url)):
        status, error = answer(client, unsigned)
        assert status == 403 and "there is no AUTHORIZE" in error
    assert answer(client, "/events")[0] == 200
    with override_settings(SECRET_KEY="newer", SECRET_KEY_FALLBACKS=["secret"]):
        assert answer(client, url)[0] == 200
    with override_settings(SECRET_KEY="another"):
        assert answer(client, url)[0] == 403


def test_a_signature_is_for_one_client(configure: Callable[..., Client]) -> None:
    ada = configure(CLIENT_ID=lambda request: request.COOKIES.get("name"))
    ada.cookies["name"] = "ada"
    bob = Client()
    bob.cookies["name"] = "bob"
    url = address(ada)
    assert answer(ada, url)[0] == 200
    assert answer(bob, url)[0] == answer(Client(), url)[0] == 403


def test_a_signature_expires_and_ends_its_stream(
    configure: Callable[..., Client], site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = configure(SIGNATURE_AGE=1)
    stream = site(get_wsgi_application()).stream(address(client))
    stream.rest()
    stream.close()
    for shift, status in ((60, 200), (-60, 403)):
        with monkeypatch.context() as patched:
            now = other.django.core.signing.time.time() + shift
            patched.setattr("django.core.signing.time.time", lambda now=now: now)
            url = address(client)
        assert answer(client, url)[0] == status
    assert "expired: load the page again" in answer(client, url)[1]


def test_what_needs_no_signature_has_none(configure: Callable[..., Client]) -> None:
    client = configure()
    assert "signature" not in address(client, "public")
    cursor = sse.hub().cursor("news")
    assert address(client, "own") == f"/mine?a=b&zone=news&lastEventId={cursor}"
    signed = address(client)
    sse_site.forget_hub()
    client = configure(AUTHORIZE=lambda *asked: False)
    assert "signature" not in address(client)
    assert answer(client, signed)[0] == answer(client, address(client))[0] == 403


def test_what_is_missing_is_named(configure: Callable[..., Client]) -> None:
    configure()
    template = engines["django"].from_string("{% load ssehub %}{% sse_url 'news' %}")
    with pytest.raises(ImproperlyConfigured, match="need the request"):
        template.render({})
    pages_only = types.ModuleType("pages_only")
    pages_only.urlpatterns = [path("page/<name>", page)]  # type: ignore[attr-defined]
    with (
        override_settings(ROOT_URLCONF=pages_only),
        pytest.raises(ImproperlyConfigured, match="there is no stream here"),
    ):
        Client().get("/page/url")
    sse_site.forget_hub()
    for age in (0, "1", 1.5):
        configure(SIGNATURE_AGE=age)
        with pytest.raises(ImproperlyConfigured, match="SIGNATURE_AGE"):
            sse.hub()
    configure()


class Task:
    """A model, as the page about HTML uses it."""

    objects: Any

    def __init__(self, text: str) -> None:
        self.pk, self.text = 7, text


Task.objects = types.SimpleNamespace(all=lambda: [Task("<old>")], create=Task)


def test_the_recipe_of_the_documentation(configure: Callable[..., Client]) -> None:
    text = (DOCS / "html.rst").read_text()
    code = textwrap.dedent(re.findall(r"In the views::\n\n((?:(?:    .*)?\n)+)", text)[0])
    scope: dict[str, Any] = {"__name__": "views", "Task": Task}
    exec(code, scope)
    row, shown = blocks(text, "html")[2:4]
    names = {"page.html": shown, "task.html": row}
    urls = types.ModuleType("urls")
    urls.urlpatterns = [  # type: ignore[attr-defined]
        path("events", views.events),
        path("", scope["page"]),
        path("tasks", scope["add"]),
    ]
    engine = {**ENGINE, "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", names)]}}
    client = configure()
    with override_settings(TEMPLATES=[engine], ROOT_URLCONF=urls), testing.capture(sse.hub()) as sent:
        answered = client.get("/").content.decode()
        url = html.unescape(re.findall(r'<turbo-stream-source src="(.*?)">', answered)[0])
        assert '<li id="task-7">&lt;old&gt;</li>' in answered and client.head(url).status_code == 200
        assert client.post("/tasks", {"text": "<new>"}).status_code == 204
    (packet,) = sent.packets()
    assert packet.message == turbo.append("tasks", '<li id="task-7">&lt;new&gt;</li>\n') and packet.zone == "tasks"
