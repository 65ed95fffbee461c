"""The console page in a real browser, headless Chromium."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssehub import Hub
from ssehub.service import create_app
from tests.apps.compressing import compressed
from tests.conftest import Site
from tests.redis_server import RedisServer
from tests.servers import answers, free_port, process
from tests.streams import Stream, call, until

PATIENCE = 20


@contextlib.contextmanager
def serving(port: int, *options: str) -> Iterator[None]:
    with process(sys.executable, "-m", "ssehub", "serve", "--port", str(port), "--heartbeat", "0.5", *options):
        until(lambda: answers(port), "the service to answer")
        yield


@pytest.fixture
def port() -> Iterator[int]:
    number = free_port()
    with serving(number):
        yield number


class Tab:
    """One tab with the console."""

    def __init__(self, browser: Any, port: int, client_id: str, zone: str = "default", connect: bool = True) -> None:
        self.browser = browser
        browser.switch_to.new_window("tab")
        self.handle = browser.current_window_handle
        browser.get(f"http://127.0.0.1:{port}/")
        self.fill("zone", zone)
        self.fill("client-id", client_id)
        if connect:
            self.click("connect")
            self.wait_until("return document.getElementById('state').dataset.state === 'open'")

    def run(self, script: str, *arguments: Any) -> Any:
        self.browser.switch_to.window(self.handle)
        return self.browser.execute_script(script, *arguments)

    def wait_until(self, script: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        self.browser.switch_to.window(self.handle)
        WebDriverWait(self.browser, PATIENCE, 0.02).until(lambda browser: browser.execute_script(script), script)

    def fill(self, id: str, value: str) -> None:
        self.run("document.getElementById(arguments[0]).value = arguments[1]", id, value)

    def click(self, id: str) -> None:
        self.run("document.getElementById(arguments[0]).click()", id)

    def send(self, button: str, text: str, **fields: str) -> None:
        self.fill("text", text)
        for id, value in fields.items():
            self.fill(id.replace("_", "-"), value)
        self.click(button)

    def messages(self) -> list[str]:
        """Return the texts shown, oldest first."""
        script = "return [...document.querySelectorAll('#messages .data')].map(one => one.textContent).reverse()"
        shown = self.run(script)
        assert isinstance(shown, list)
        return shown

    def wait_for(self, *texts: str) -> None:
        until(lambda: self.messages() == list(texts), f"{texts}, but it shows {self.messages()}")

    def connections(self) -> dict[str, list[str]]:
        """Return the clients listed, by zone."""
        script = """return Object.fromEntries([...document.querySelectorAll('#connections [data-zone]')].map(
            group => [group.dataset.zone,
                      [...group.querySelectorAll('[data-client-id]')].map(one => one.dataset.clientId)]))"""
        listed = self.run(script)
        assert isinstance(listed, dict)
        return listed


@pytest.fixture(autouse=True)
def only_one_tab(request: pytest.FixtureRequest, browser: Any) -> Iterator[None]:
    first = browser.current_window_handle
    yield
    for handle in browser.window_handles:
        if handle != first:
            browser.switch_to.window(handle)
            browser.close()
    browser.switch_to.window(first)


def test_each_tab_shows_what_is_for_it_and_nothing_else(browser: Any, port: int) -> None:
    ada = Tab(browser, port, "ada", zone="a")
    bob = Tab(browser, port, "bob", zone="a, b")
    until(lambda: ada.connections() == {"a": ["ada", "bob"], "b": ["bob"]}, "the list of connections")
    ada.send("send-client", "to bob", to_client="bob", to_zone="")
    ada.send("send-client", "to ada in a", to_client="ada", to_zone="a")
    ada.send("send-client", "to ada in b, where she is not", to_client="ada", to_zone="b")
    ada.send("send-zone", "to b", to_zone="b")
    ada.send("send-zone", "to a", to_zone="a")
    bob.send("send-all", "to all")
    ada.wait_for("to ada in a", "to a", "to all")
    bob.wait_for("to bob", "to b", "to a", "to all")
    bob.wait_until("return document.getElementById('sent').textContent.startsWith('Sent to 2 connections; the id is ')")
    bob.click("disconnect")
    until(lambda: ada.connections() == {"a": ["ada"]}, "bob to leave the list")
    ada.send("send-all", "to who is left")
    ada.wait_for("to ada in a", "to a", "to all", "to who is left")
    assert bob.messages()[-1] == "to all"


def test_the_page_draws_how_well_it_goes(browser: Any, port: int) -> None:
    tab = Tab(browser, port, "ada")
    until(lambda: tab.run("return document.getElementById('n-connections').textContent") == "1")
    for count in range(1, 4):  # one after the other, or two could leave in one write
        tab.send("send-all", "hello")
        tab.wait_for(*["hello"] * count)
    until(lambda: tab.run("return document.getElementById('n-delivered').textContent") == "3")
    until(lambda: tab.run("return document.getElementById('delay').textContent").endswith("of 3 writes."))
    shown = "return [...document.querySelectorAll('#delays span')].filter(one => one.offsetHeight).length"
    assert tab.run(shown) >= 1
    assert tab.run("return document.getElementById('n-gaps').textContent") == "0"


def shown_streams(tab: Tab) -> list[str]:
    """Return how many streams are shown to be detached, parked and on threads."""
    script = "return ['detached', 'parked', 'on-threads'].map(name => document.getElementById('n-' + name).textContent)"
    shown = tab.run(script)
    assert isinstance(shown, list)
    return shown


def test_the_page_shows_how_streams_are_served(browser: Any, port: int) -> None:
    tab = Tab(browser, port, "ada")
    until(lambda: shown_streams(tab) == ["1", "0", "0"])
    assert tab.run("return document.getElementById('not-taken').hidden")


def test_the_page_shows_why_streams_stay_on_threads(
    browser: Any, site: Callable[[Any], Site], make_hub: Callable[..., Hub]
) -> None:
    hub = make_hub(heartbeat=0.5, detach=None)
    plain, packed = create_app(hub, public=False), compressed(create_app(hub, public=False), is_flushed=True)
    here = site(lambda environ, start: (packed if environ["QUERY_STRING"] == "packed" else plain)(environ, start))
    streams = [here.stream("/events?packed") for _ in range(2)]
    browser.set_window_size(400, 1000)
    tab = Tab(browser, here.port, "ada")
    until(lambda: shown_streams(tab) == ["0", "1", "2"])
    shown = tab.run("return [...document.querySelectorAll('#not-taken li')].map(one => one.textContent)")
    assert shown == ["a middleware compresses the stream: 2"]
    assert tab.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    _keep_picture(tab, "console-phone")
    tab.click("disconnect")
    for stream in streams:
        stream.close()
    until(lambda: not hub.connections())
    browser.get("about:blank")  # it keeps no connection to a server that closes


def _keep_picture(tab: Tab, name: str) -> None:
    if folder := os.environ.get("SSEHUB_SCREENSHOTS"):
        tab.browser.set_window_size(400, tab.run("return document.documentElement.scrollHeight") + 150)
        tab.browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_a_message_of_html_stays_text(browser: Any, port: int) -> None:
    tab = Tab(browser, port, "<b>ada</b>")
    hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    tab.send("send-all", hostile, event_type="<i>type</i>")
    tab.wait_for(hostile)
    until(lambda: tab.connections() == {"default": ["<b>ada</b>"]})
    assert tab.run("return document.querySelectorAll('#messages img, #messages script, main i, main b').length") == 0
    assert tab.run("return document.title") == "ssehub console"
    assert tab.run("return document.querySelector('#messages .event').textContent") == "<i>type</i>"


def test_the_page_comes_back_by_itself_after_a_restart_and_tells_the_gap(browser: Any) -> None:
    number = free_port()
    with serving(number):
        tab = Tab(browser, number, "ada")
        tab.send("send-all", "before")
        tab.wait_for("before")
    tab.wait_until("return document.getElementById('state').dataset.state === 'connecting'")
    with serving(number):
        tab.wait_until("return document.getElementById('state').dataset.state === 'open'")
        tab.send("send-all", "after")
        until(lambda: tab.messages()[-1] == "after", f"the message, but it shows {tab.messages()}")
        shown = tab.messages()
        assert shown[0] == "before" and "(epoch)" in shown[1] and len(shown) == 3
        until(lambda: tab.connections() == {"default": ["ada"]})


def test_each_console_shows_the_connections_of_every_process(browser: Any, redis_server: RedisServer) -> None:
    first, second = free_port(), free_port()
    with serving(first, "--log", redis_server.url), serving(second, "--log", redis_server.url):
        ada, bob = Tab(browser, first, "ada", zone="a"), Tab(browser, second, "bob", zone="b")
        for tab in (ada, bob):
            until(lambda tab=tab: tab.connections() == {"a": ["ada"], "b": ["bob"]})
            tab.wait_until(
                "return document.getElementById('processes').textContent.match(/process \\d+: 1/g).length === 2"
            )
        ada.send("send-client", "from the other process", to_client="bob", to_zone="")
        bob.wait_for("from the other process")
        ada.wait_until(
            "return document.getElementById('sent').textContent.includes('0 connections of the process that received')"
        )
        bob.click("disconnect")
        until(lambda: ada.connections() == {"a": ["ada"]})


def test_two_clicks_make_one_connection_and_leaving_first_is_harmless(browser: Any, port: int) -> None:
    tab = Tab(browser, port, "ada", connect=False)
    tab.click("disconnect")
    tab.click("connect")
    tab.click("connect")
    tab.wait_until("return document.getElementById('state').dataset.state === 'open'")
    until(lambda: call(port, "GET", "/stats")[1]["stats"]["connections"] == 1)
    tab.send("send-all", "once")
    tab.wait_for("once")
    tab.click("disconnect")
    tab.click("disconnect")
    until(lambda: call(port, "GET", "/stats")[1]["stats"]["connections"] == 0)


def test_an_empty_recipient_is_refused_and_nothing_is_sent(browser: Any, port: int) -> None:
    tab = Tab(browser, port, "ada")
    for button, fields in (("send-client", {"to_client": ""}), ("send-zone", {"to_zone": " "})):
        tab.send(button, "to nobody", **fields)
        assert "empty" in tab.run("return document.getElementById('error').textContent")
    tab.send("send-client", "x", to_client="a\tb")
    tab.wait_until("return document.getElementById('error').textContent.includes('control')")
    assert call(port, "GET", "/stats")[1]["stats"]["messages"] == 0
    tab.send("send-all", "to all")
    tab.wait_for("to all")
    assert tab.run("return document.getElementById('error').hidden")


def test_the_rate_is_drawn_and_said_and_no_script_has_failed(browser: Any, port: int) -> None:
    tab = Tab(browser, port, "ada")
    tab.send("send-all", "one")
    tab.wait_until("return !/none|most 0/.test(document.getElementById('rate').textContent)")
    assert tab.run("return document.getElementById('rate-line').getAttribute('points').length") > 0
    said = [entry["message"] for entry in browser.get_log("browser")]
    assert not [text for text in said if "Uncaught" in text or "Content Security" in text]


#: Returns the texts of labels that do not fit into their places.
_CLIPPED = """return [...document.querySelectorAll('label, small, dt, dd, h2, button, figcaption')]
    .filter(one => one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1)
    .filter(one => getComputedStyle(one).display !== 'inline').map(one => one.textContent)"""


@pytest.mark.parametrize("width", [1200, 400, 320])
def test_the_page_fits_its_window(browser: Any, port: int, width: int) -> None:
    others = [
        Stream(port, f"/events?client_id={who}") for who in ("bob&zone=news", "grace&zone=news&zone=room+7", "bob")
    ]
    tab = Tab(browser, port, "ada", zone="news, room 7, default", connect=False)
    tab.click("connect")
    tab.wait_until("return document.getElementById('state').dataset.state === 'open'")
    browser.set_window_size(width, 1000)
    tab.send("send-zone", "The ferry is late", to_zone="news")
    call(port, "POST", "/send", {"data": '{"home":2,"guests":1}', "zone": "room 7", "event": "score"})
    tab.wait_until("return [...document.querySelectorAll('.event')].some(one => one.textContent === 'score')")
    tab.send("send-client", "Are you there?", to_client="ada", to_zone="", event_type="")
    until(lambda: len(tab.messages()) == 3 and len(tab.connections()) == 3)
    assert tab.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    tab.wait_until("return document.querySelectorAll('#delays small').length > 5")
    assert tab.run(_CLIPPED) == []
    folder = os.environ.get("SSEHUB_SCREENSHOTS")
    if folder and width == 1200:
        _take_picture(tab, port, Path(folder))
    for other in others:
        other.close()


def test_the_console_sends_its_token_and_shows_why_it_is_refused(browser: Any) -> None:
    number = free_port()
    with serving(number, "--token", "secret"):
        tab = Tab(browser, number, "ada", connect=False)
        tab.click("connect")
        tab.wait_until("return document.getElementById('error').textContent.includes('token')")
        tab.fill("token", "secret")
        tab.click("connect")
        tab.wait_until("return document.getElementById('state').dataset.state === 'open'")
        tab.send("send-client", "hello", to_client="ada", to_zone="")
        tab.wait_for("hello")


def _take_picture(tab: Tab, port: int, folder: Path) -> None:
    """Let half a minute go by, so that there is a rate to be drawn, and keep what the page looks like."""
    tab.fill("to-client", "bob")
    for second in range(30):
        for _ in range((7 * second) % 12 + second // 3):
            call(port, "POST", "/send", {"data": "tick", "zone": "elsewhere"})
        time.sleep(1.0)
    tab.run("document.documentElement.style.overflow = 'hidden'")  # no bar to scroll with
    tab.browser.set_window_size(1200, tab.run("return document.documentElement.scrollHeight") + 150)
    tab.browser.save_screenshot(str(folder / "console.png"))
