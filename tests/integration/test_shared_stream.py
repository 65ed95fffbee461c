"""One stream for all tabs: the script in a real browser, headless Chromium, on a server that speaks HTTP/1.1."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import pytest
from werkzeug.wrappers import Response

from ssehub import Hub, Log, MemoryLog, Message, RedisLog
from ssehub.service import create_app
from tests.redis_server import RedisServer
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


class Tab:
    """One tab with the page. Tabs are used again: to make one takes a quarter of a second."""

    free: ClassVar[list[str]] = []

    def __init__(self, browser: Any, port: int, query: str = "") -> None:
        self._browser = browser
        if self.free:
            self.handle = self.free.pop()
            browser.switch_to.window(self.handle)
        else:
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

    def wait_for_numbers(self, count: int) -> None:
        """Wait until the page has had the numbers up to this one, each once and in order."""
        until(lambda: self.read("got.length") >= count, f"{count} numbers, but there are {self.read('got.length')}")
        assert self.read("got.findIndex((text, n) => text !== String(n))") == -1
        assert self.read("got.length") == count

    def tell(self, command: str, **arguments: Any) -> None:
        """Give a command of the DevTools protocol."""
        self._browser.switch_to.window(self.handle)
        self._browser.execute_cdp_cmd(command, arguments)

    def freeze(self) -> None:
        self.tell("Page.setWebLifecycleState", state="frozen")

    def wake(self) -> None:
        self.tell("Page.setWebLifecycleState", state="active")

    def crash(self) -> None:
        from selenium.common.exceptions import WebDriverException

        with pytest.raises(WebDriverException, match="crash"):
            self.tell("Page.crash")

    def close(self) -> None:
        self._browser.switch_to.window(self.handle)
        self._browser.close()

    def release(self) -> None:
        """End what the page does, and let another test have the tab."""
        self.run("if (stream) stream.close()")
        self.free.append(self.handle)


class Place:
    """A hub, its service with the page, and the tabs that have been opened."""

    def __init__(self, browser: Any, hub: Hub, port: int) -> None:
        self._browser = browser
        self.hub = hub
        self._port = port
        self.tabs: list[Tab] = []

    def blank(self, count: int, query: str = "") -> list[Tab]:
        """Open tabs that do not follow anything yet."""
        opened = [Tab(self._browser, self._port, query) for _ in range(count)]
        self.tabs += opened
        return opened

    def open(self, count: int = 1, url: str = "/events", types: Sequence[str] = (), query: str = "") -> list[Tab]:
        """Open tabs that follow a stream, and wait until it is open in each."""
        opened = self.blank(count, query)
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

    def lose(self, tab: Tab, end: Callable[[Tab], None] = Tab.close) -> None:
        self.tabs.remove(tab)
        end(tab)

    def connections(self) -> int:
        return self.hub.stats()["connections"]


@pytest.fixture
def make_place(browser: Any, make_hub: Callable[..., Hub], site: Callable[[Any], Any]) -> Iterator[Any]:
    made: list[Place] = []

    def make(log: Log | None = None, **options: Any) -> Place:
        hub = make_hub(log, heartbeat=0.2, retry=50, **options)
        service = create_app(hub, public=False)

        def app(environ: dict[str, Any], start_response: Any) -> Any:
            is_page = environ["PATH_INFO"] == "/page"
            return (Response(PAGE, mimetype="text/html") if is_page else service)(environ, start_response)

        made.append(Place(browser, hub, site(app).port))
        return made[-1]

    yield make
    for one in made:
        for tab in one.tabs:
            tab.release()


@pytest.fixture
def place(make_place: Callable[..., Place]) -> Place:
    return make_place()


@contextlib.contextmanager
def numbers(hub: Hub, at_once: int = 1) -> Iterator[list[str]]:
    """Send numbers as long as the block lasts, so many each millisecond; they are listed as they are sent."""
    sent: list[str] = []
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.001):
            for _ in range(at_once):
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
        tab.wait_for_numbers(100)
        assert tab.read("states") == ["open"]
    sessions = {session for tab in tabs for session in tab.read("sessions")}
    assert sessions == {place.hub.connections()[0].id}
    assert place.hub.stats()["opened"] == 1


def test_with_event_sources_of_their_own_the_seventh_tab_waits(place: Place) -> None:
    tabs = place.blank(7)
    for tab in tabs:
        tab.run("stream = new EventSource('/events')")
    until(lambda: place.connections() == 6)
    for tab in tabs[:6]:
        tab.wait("stream.readyState", 1)
    assert tabs[6].read("stream.readyState") == 0
    tabs[0].run("stream.close()")
    tabs[6].wait("stream.readyState", 1)


def test_when_the_leader_is_closed_or_crashes_nobody_misses_or_doubles_anything(place: Place) -> None:
    place.open(4)
    with numbers(place.hub) as sent:
        for end in (Tab.close, Tab.crash):
            until(lambda: len(sent) % 100 > 50)
            place.lose(place.leader(), end)
            place.leader()
    assert len(sent) > 100
    for tab in place.tabs:
        tab.wait_for_numbers(len(sent))
    until(lambda: place.connections() == 1)


def test_a_frozen_leader_hands_over_and_a_frozen_follower_catches_up(place: Place) -> None:
    tabs = place.open(3)
    with numbers(place.hub, at_once=4) as sent:
        for leads, meanwhile in ((True, 1200), (False, 100)):  # the first is more than a tab knows again
            frozen = next(tab for tab in tabs if tab.read("stream._leads") == leads)
            until(lambda frozen=frozen: frozen.read("got.length") > 100)
            frozen.freeze()
            others = [tab for tab in tabs if tab is not frozen]
            until(lambda others=others: any(tab.read("stream._leads") for tab in others), "another leader")
            enough = len(sent) + meanwhile
            until(lambda enough=enough: len(sent) > enough)
            frozen.wake()
    for tab in tabs:
        tab.wait_for_numbers(len(sent))
        assert tab.read("gaps") == []
    until(lambda: place.connections() == 1)


def test_a_tab_that_finds_something_missing_in_what_it_is_told_reads_it_itself(place: Place) -> None:
    leader, deaf = place.open(2)
    deaf.run("window.hear = stream._channel.onmessage; stream._channel.onmessage = null")
    place.hub.broadcast("0")
    leader.wait_for_numbers(1)
    deaf.run("stream._channel.onmessage = hear")
    place.hub.broadcast("1")
    for tab in (leader, deaf):
        tab.wait_for_numbers(2)
    assert place.hub.stats()["opened"] == 2


def test_what_the_former_leader_said_comes_too_late_for_the_new_one(place: Place) -> None:
    leader, late = place.open(2)
    late.run("""
        const channel = stream._channel, hear = channel.onmessage, lead = stream._lead, kept = [];
        channel.onmessage = event => kept.push(event);
        stream._lead = () => { lead.call(stream); channel.onmessage = hear; kept.forEach(hear); };
    """)
    for number in range(3):
        place.hub.broadcast(str(number))
    leader.wait_for_numbers(3)
    place.lose(leader)
    late.wait_for_numbers(3)
    place.hub.broadcast("3")
    late.wait_for_numbers(4)


def test_a_gap_is_told_to_the_tab_that_has_it_and_no_other(
    make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssehub.server.page_cache.FRESH", 0.0)  # what the log has let go of is gone at once
    place = make_place(MemoryLog(size=50))
    place.hub.on_gap(lambda connection, gap: connection.send("all anew"))
    awake, frozen = place.open(2)
    frozen.freeze()
    for number in range(100):
        place.hub.broadcast(str(number))
        if number % 40 == 39:  # or the other has a gap, too
            awake.wait("got.length", number + 1)
    awake.wait("got.length", 100)
    frozen.wake()
    frozen.wait("got", ["all anew", *map(str, range(50, 100))])
    assert frozen.read("gaps") == ["trimmed"] and awake.read("gaps") == []
    until(lambda: place.connections() == 1)
    place.hub.broadcast("and on")
    for tab in (awake, frozen):
        tab.wait("got.at(-1)", "and on")
        assert tab.read("sessions.length") == 1


def test_each_tab_gets_the_types_it_listens_to_also_after_a_change_of_the_leader(place: Place) -> None:
    first, second, third = place.open(types=["score"]) + place.open(types=["goal"]) + place.open()
    place.hub.broadcast(Message("1", "score"))
    place.hub.broadcast(Message("1", "goal"))
    place.hub.broadcast("no type")
    for tab, named in ((first, ["score 1"]), (second, ["goal 1"]), (third, [])):
        tab.wait("got", ["no type"])
        assert tab.read("named") == named
    third.run("listen('card')")
    until(lambda: first.read("stream._types.has('card')"))
    place.hub.broadcast(Message("1", "card"))
    third.wait("named", ["card 1"])
    place.lose(first)
    for number in range(2, 5):
        for kind in ("score", "goal", "card"):
            place.hub.broadcast(Message(str(number), kind))
    second.wait("named", ["goal 1", "goal 2", "goal 3", "goal 4"])
    third.wait("named", ["card 1", "card 2", "card 3", "card 4"])


def test_each_tab_begins_where_it_says_and_tabs_with_other_urls_have_other_streams(place: Place) -> None:
    cursor = place.hub.cursor()
    place.hub.broadcast("before")
    (now,) = place.open()
    since, page = place.open(url="/events?since=1") + place.open(url=f"/events?lastEventId={cursor}")
    (other,) = place.open(url="/events?zone=news")
    for tab in (since, page):
        tab.wait("got", ["before"])
    place.hub.broadcast("to news", zone="news")
    place.hub.broadcast("after")
    now.wait("got", ["after"])
    since.wait("got", ["before", "after"])
    page.wait("got", ["before", "after"])
    other.wait("got", ["to news", "after"])
    for tab in place.tabs:
        assert tab.read("states") == ["open"]
        tab.run("stream.close(); stream.close()")
        assert tab.read("stream.readyState") == 2
    until(lambda: place.connections() == 0)
    place.hub.broadcast("to nobody")
    assert now.read("got") == ["after"]


def test_without_locks_each_tab_has_its_own_connection_and_all_else_is_the_same(place: Place) -> None:
    tabs = place.open(2, types=["score"], query="?nolocks")
    assert place.connections() == 2
    with numbers(place.hub) as sent:
        until(lambda: len(sent) > 100)
        tabs[0].freeze()
        so_far = len(sent)
        until(lambda: len(sent) > so_far + 100)
        tabs[0].wake()
    place.hub.broadcast(Message("7", "score"))
    for tab in tabs:
        tab.wait("named", ["score 7"])
        tab.wait_for_numbers(len(sent))
    tabs[0].run("stream.close()")
    until(lambda: place.connections() == 1)


def test_all_tabs_are_told_of_the_end_of_the_connection_and_that_it_is_back(place: Place) -> None:
    tabs = place.open(2)
    place.hub.connections()[0].close()
    for tab in tabs:
        tab.wait("states", ["open", "error", "open"])
        assert tab.read("sessions.length") == 2
    place.hub.broadcast("back")
    for tab in tabs:
        tab.wait("got", ["back"])


def test_a_log_of_several_partitions_which_each_connection_reads_in_another_order(
    make_place: Callable[..., Place], redis_server: RedisServer
) -> None:
    place = make_place(RedisLog(redis_server.url, name=secrets.token_hex(4), partitions=4))
    place.open(4, url=f"/events?{'&'.join(f'zone={zone}' for zone in 'abcdef')}")
    sent = []
    for number in range(300):
        if number == 100:
            place.lose(place.leader(), lambda tab: tab.run("stream.close()"))
        if number == 200:
            place.tabs[0].freeze()
        sent.append(f"{'abcdef'[number % 6]} {number}")
        place.hub.broadcast(sent[-1], zone=sent[-1][0])
    place.tabs[0].wake()
    for tab in place.tabs:
        until(lambda tab=tab: tab.read("got.length") >= len(sent))
        got = tab.read("got")
        assert sorted(got) == sorted(sent) and tab.read("gaps") == []
        for zone in "abcdef":  # each zone has its order
            assert [text for text in got if text[0] == zone] == [text for text in sent if text[0] == zone]


@pytest.mark.parametrize("answer", [200, 503])
def test_a_tab_for_which_there_is_no_room_goes_on_with_the_others(
    make_place: Callable[..., Place], answer: int
) -> None:
    place = make_place(max_connections=1, refuse_with=answer)
    place.hub.broadcast("before")
    (first,) = place.open()
    (late,) = place.blank(1)
    late.run("follow(...arguments)", "/events?since=1")
    late.wait("gaps", ["refused"])
    late.wait("stream.readyState", 1)
    place.hub.broadcast("after")
    for tab in (first, late):
        tab.wait("got", ["after"])
    assert first.read("gaps") == []


def test_the_end_of_a_production_ends_the_stream_in_all_tabs(place: Place) -> None:
    go = threading.Event()

    def items() -> Iterator[int]:
        yield from range(3)
        assert go.wait(10)
        yield 3

    place.hub.produce("answer", items())
    tabs = place.open(2, "/events?zone=answer&since=oldest", ["ssehub.end"])
    for tab in tabs:
        tab.wait_for_numbers(3)
    go.set()
    for tab in tabs:
        tab.wait_for_numbers(4)
        tab.wait("named", ['ssehub.end {"reason":"done","zone":"answer"}'])
        tab.wait("stream.readyState", 2)
    until(lambda: place.connections() == 0)
