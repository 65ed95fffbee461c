"""The pages of the examples in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.example_apps import hurried, served
from tests.streams import Stream, call, until

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


class Tab:
    """One tab with a page, and what a person does there."""

    def __init__(self, browser: Any, port: int, path: str = "/") -> None:
        self.browser = browser
        browser.switch_to.new_window("tab")
        self.handle = browser.current_window_handle
        browser.get(f"http://127.0.0.1:{port}{path}")

    def run(self, script: str, *arguments: Any) -> Any:
        self.browser.switch_to.window(self.handle)
        return self.browser.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """Return the text of all that a selector finds, a line each."""
        found = "[...document.querySelectorAll(arguments[0])].map(one => one.textContent).join('\\n')"
        return str(self.run(f"return {found}", selector))

    def fill(self, **values: str) -> None:
        for id, value in values.items():
            self.run("document.getElementById(arguments[0]).value = arguments[1]", id, value)

    def click(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).click()", selector)

    def reload(self) -> None:
        self.run("location.reload()")

    def see(self, selector: str, text: str) -> None:
        until(lambda: text in self.text(selector), f"{text!r} in {selector}")


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """Give a function that opens a page; its tabs are closed, and no script has failed in them."""
    first = browser.current_window_handle
    yield lambda port: Tab(browser, port)
    said = [entry["message"] for entry in browser.get_log("browser")]
    for handle in browser.window_handles:
        if handle != first:
            browser.switch_to.window(handle)
            browser.close()
    browser.switch_to.window(first)
    assert not [text for text in said if "Uncaught" in text]


def test_the_ticker_shows_prices_that_change(tab: Any) -> None:
    with hurried("ticker", INTERVAL=0.05) as port:
        page = tab(port)
        page.see("#state", "live")
        before = page.text("output")
        until(lambda: "–" not in page.text("output") != before)
    page.see("#state", "connecting again")


def test_in_the_chat_all_see_what_is_said_to_them_as_text(tab: Any) -> None:
    with served("chat") as (port, _):
        ada, bob, eve = (tab(port) for _ in range(3))
        for page, name in ((ada, "ada"), (bob, "<i>bob</i>"), (eve, "eve")):
            page.fill(name=name)
            page.click("#join button")
        for page in (ada, bob, eve):
            page.see("#online", "Here: <i>bob</i>, ada, eve")
        for to, text in (("<i>bob</i>", "psst"), ("", HOSTILE)):
            ada.fill(to=to, text=text)
            ada.click("#write button")
            ada.see("#messages", text)
        for page in (ada, bob):
            page.see("#messages", f"ada to <i>bob</i>: psst\nada: {HOSTILE}".replace("\n", ""))
        eve.see("#messages", f"ada: {HOSTILE}")
        assert "psst" not in eve.text("#messages")
        assert all(page.run("return document.querySelectorAll('#messages img, i').length") == 0 for page in (ada, eve))
        ada.fill(to="<i>bob</i>")
        bob.run("location.href = 'about:blank'")
        until(lambda: ada.text("#online") == "Here: ada, eve", "bob to leave with the page")
        assert ada.run("return document.getElementById('to').value") == ""
        ada.fill(text="while bob is away")
        ada.click("#write button")
        bob.run("history.back()")
        bob.see("#messages", "while bob is away")
        ada.see("#online", "bob")


def test_the_countdown_ends_and_the_page_does_not_come_back(tab: Any) -> None:
    with hurried("countdown", PAUSE=0.02) as port:
        page = tab(port)
        for _ in range(2):
            page.see("#state", "at its end")
            assert page.run("return [source.readyState, document.querySelectorAll('#times li').length]") == [2, 10]
            assert page.run("return document.getElementById('progress').value") == 10
            page.click("#start")
        page.see("#state", "at its end")


def test_sessions_share_notes_and_status_and_are_signed_out(tab: Any) -> None:
    with served("sessions") as (port, _):
        phone, laptop = tab(port), tab(port)
        for page, device in ((phone, "phone"), (laptop, "laptop")):
            page.fill(user="ada", device=device)
            page.click("#sign-in button")
            page.see("#state", f"ada's {device}")
        laptop.see("#sessions", "Sign out the phone")
        phone.fill(mood="busy")
        phone.click("#status button")
        phone.fill(text=HOSTILE)
        phone.click("#note button")
        laptop.see("#notes", HOSTILE)
        for page in (phone, laptop):
            page.see("#shown-status", "busy")
        assert phone.text("#notes") == ""
        laptop.see("#sessions .me", "laptop")
        laptop.click("#sessions li:not(.me) button")
        phone.see("#state", "signed out")
        laptop.click("#sign-out")
        laptop.see("#state", "signed out")


def test_the_heartbeat_page_shows_the_time_and_the_news(tab: Any) -> None:
    with hurried("heartbeat", SECOND=0.05) as port:
        page = tab(port)
        page.see("#off", "ms")
        call(port, "POST", "/news", {"text": HOSTILE})
        page.see("#news", HOSTILE)
        page.fill(every="")
        page.run("document.getElementById('every').dispatchEvent(new Event('change'))")
        page.see("#state", "live")
        assert page.text("#time") == "–"


def test_an_answer_survives_a_reload_and_tells_how_it_has_ended(tab: Any, tmp_path: Path) -> None:
    with served("tokens", TOKENS_DB=str(tmp_path / "tokens.db")) as (port, _):
        page = tab(port)
        page.fill(prompt="one two")
        page.click("#ask")
        page.see("#answer", "You wrote")
        page.reload()
        page.see("#state", "done")
        assert page.text("#answer") == 'You wrote "one two". I only repeat it: one two one two one two '
        page.fill(prompt="please fail")
        page.click("#ask")
        page.see("#state", "broken off: the model has run out of words")


def test_a_click_on_stop_stops_the_answer_in_every_window(tab: Any, tmp_path: Path) -> None:
    with served("tokens", TOKENS_DB=str(tmp_path / "tokens.db")) as (port, _):
        page = tab(port)
        page.fill(prompt="x " * 900)
        page.click("#ask")
        page.see("#answer", "You wrote")
        answer = page.run("return location.hash.slice(1)")
        other = Stream(port, f"/answers/{answer}")
        other.data(2)
        page.click("#stop")
        page.see("#state", "stopped")
        assert [one.event for one in other.rest()][-1] == "ssehub.end"


def test_the_readmes_command_serves_the_countdown() -> None:
    with served("countdown") as (port, _):
        stream = Stream(port, "/sse", {"Last-Event-ID": "10"})
        assert [event.event for event in stream.rest()] == ["end"]
