"""One stream for all tabs: the script in a real browser, headless Chromium, on a server that speaks HTTP/1.1."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from werkzeug.wrappers import Response

from ssehub import Hub, MemoryLog, Message
from ssehub.server.app import create_app
from tests.servers import missing
from tests.streams import until

PAGE = """<!DOCTYPE html><title>tab</title><script>
if (location.search === "?nolocks") Object.defineProperty(navigator, "locks", {value: undefined});
</script><script src="/shared.js"></script><script>
const got = [], named = [], states = [], gaps = [], sessions = [];
let stream;
function follow(url, ...types) {
  stream = new SharedEventSource(url);
  stream.onmessage = event => got.push(event.data);
  stream.onopen = () => states.push("open");
  stream.onerror = () => states.push("error");
  stream.addEventListener("ssehub.gap", event => gaps.push(JSON.parse(event.data).reason));
  stream.addEventListener("ssehub.open", event => sessions.push(JSON.parse(event.data).session_id));
  for (const type of types) listen(type);
}
function listen(type) {
  stream.addEventListener(type, event => named.push(`${event.type} ${event.data}`));
}
</script>"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    try:
        from selenium import webdriver
    except ImportError:
        missing("selenium")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        missing("chromium, or its chromedriver,")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "disable-dev-shm-usage", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


class Tab:
    """One tab with the page."""

    def __init__(self, browser: Any, port: int, query: str = "") -> None:
        self._browser = browser
        browser.switch_to.new_window("tab")
        self.handle = browser.current_window_handle
        browser.get(f"http://127.0.0.1:{port}/page{query}")

    def run(self, script: str, *arguments: Any) -> Any:
        self._browser.switch_to.window(self.handle)
        return self._browser.execute_script(script, *arguments)

    def read(self, what: str) -> Any:
        return self.run(f"return {what}")

    def wait(self, what: str, value: Any) -> None:
        until(lambda: self.read(what) == value, f"{what} to be {value}, but it is {self.read(what)}")

    def tell(self, command: str, **arguments: Any) -> None:
        """Give a command of the DevTools protocol."""
        self._browser.switch_to.window(self.handle)
        self._browser.execute_cdp_cmd(command, arguments)

    def close(self) -> None:
        self._browser.switch_to.window(self.handle)
        self._browser.close()


class Place:
    """A hub, its service with the page, and the tabs that have been opened."""

    def __init__(self, browser: Any, hub: Hub, port: int) -> None:
        self._browser = browser
        self.hub = hub
        self._port = port
        self.tabs: list[Tab] = []

    def open(self, count: int = 1, url: str = "/events", types: Sequence[str] = (), query: str = "") -> list[Tab]:
        opened = [Tab(self._browser, self._port, query) for _ in range(count)]
        self.tabs += opened
        for tab in opened:
            tab.run("follow(...arguments)", url, *types)
        for tab in opened:
            tab.wait("stream.readyState", 1)
        return opened

    def leader(self) -> Tab:
        """Return the tab that has the connection, when there is one."""
        found: list[Tab] = until(lambda: [tab for tab in self.tabs if tab.read("stream._leads")], "a leader")
        assert len(found) == 1
        return found[0]

    def lose(self, tab: Tab) -> None:
        tab.close()
        self.tabs.remove(tab)

    def connections(self) -> int:
        return self.hub.stats()["connections"]


@pytest.fixture
def make_place(browser: Any, make_hub: Callable[..., Hub], site: Callable[[Any], Any]) -> Iterator[Any]:
    first = browser.current_window_handle

    def make(log: MemoryLog | None = None) -> Place:
        hub = make_hub(log, heartbeat=0.2, retry=50)
        service = create_app(hub)

        def app(environ: dict[str, Any], start_response: Any) -> Any:
            is_page = environ["PATH_INFO"] == "/page"
            return (Response(PAGE, mimetype="text/html") if is_page else service)(environ, start_response)

        return Place(browser, hub, site(app).port)

    yield make
    for handle in browser.window_handles:
        if handle != first:
            browser.switch_to.window(handle)
            with contextlib.suppress(Exception):  # one that has crashed
                browser.close()
    browser.switch_to.window(first)


@pytest.fixture
def place(make_place: Callable[..., Place]) -> Place:
    return make_place()


@contextlib.contextmanager
def numbers(hub: Hub) -> Iterator[list[str]]:
    """Send numbers as long as the block lasts, some two thousand a second; they are listed as they are sent."""
    sent: list[str] = []
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.0005):
            sent.append(str(len(sent)))
            hub.broadcast(sent[-1])

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


def test_eight_tabs_get_everything_over_one_connection(place: Place) -> None:
    tabs = place.open(8)
    assert place.connections() == 1
    for number in range(100):
        place.hub.broadcast(str(number))
    for tab in tabs:
        tab.wait("got", [str(number) for number in range(100)])
        assert tab.read("states") == ["open"]
    sessions = {session for tab in tabs for session in tab.read("sessions")}
    assert sessions == {place.hub.connections()[0].id}
    assert place.hub.stats()["opened"] == 1


def test_with_event_sources_of_their_own_the_seventh_tab_waits(place: Place) -> None:
    tabs = [Tab(place._browser, place._port) for _ in range(7)]
    for tab in tabs:
        tab.run("stream = new EventSource('/events')")
    until(lambda: place.connections() == 6)
    for tab in tabs[:6]:
        tab.wait("stream.readyState", 1)
    assert tabs[6].read("stream.readyState") == 0
    tabs[0].run("stream.close()")
    tabs[6].wait("stream.readyState", 1)


def test_when_the_leader_is_closed_or_crashes_nobody_misses_or_doubles_anything(place: Place) -> None:
    place.open(6)
    with numbers(place.hub) as sent:
        for end in ("close", "crash", "close()"):
            until(lambda: len(sent) % 100 > 50)
            leader = place.leader()
            if end == "close":
                place.lose(leader)
            elif end == "crash":
                place.tabs.remove(leader)
                with contextlib.suppress(Exception):  # the driver says that the tab has crashed
                    leader.tell("Page.crash")
            else:
                leader.run("stream.close()")
                place.tabs.remove(leader)
            place.leader()
    assert len(sent) > 200
    for tab in place.tabs:
        until(lambda tab=tab: tab.read("got.at(-1)") == sent[-1], "the last number")
        assert tab.read("got") == sent
    until(lambda: place.connections() == 1)
