"""The examples for htmx, Turbo and Datastar, with the libraries themselves in a real browser."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flask import abort, render_template_string, request

from ssehub import Message
from ssehub.html import htmx
from tests.browser import Tab, wait_for_browser
from tests.docs.test_docs import DOCS, blocks
from tests.example_apps import EXAMPLES
from tests.libraries import Libraries
from tests.streams import call

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
DOWNLOAD = re.compile(r"curl -o static/(\S+) https://cdn\.jsdelivr\.net/npm/(@?[^@\s]+@[\d.]+)/(\S+)")
NOWHERE = "0.0.00000000"


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    return Libraries(tmp_path_factory.mktemp("libraries"))


class Example:
    """An example that runs in this process, with the libraries that its README downloads."""

    def __init__(self, module: ModuleType, site: Any) -> None:
        self.module = module
        self.sse = module.sse
        self.hub = module.app.extensions["ssehub"]
        self.port = site(module.app).port
        self.url = f"http://127.0.0.1:{self.port}/"

    def post(self, path: str, **form: str) -> None:
        assert call(self.port, "POST", path, form)[0] == 204

    def connected(self, count: int) -> None:
        """Wait until so many pages have a stream."""
        wait_for_browser(lambda: self.hub.stats()["connections"] == count, f"{count} streams")

    def refuse(self) -> list[int]:
        """Answer the next request for a stream with a 502, as a proxy does at a restart. Return what is still to be."""
        left = [502]

        def refuse() -> None:
            if request.path == "/events" and left:
                abort(left.pop())

        self.module.app.before_request_funcs.setdefault(None, []).append(refuse)
        return left

    def forget(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Let the next page have a cursor that no log knows. Return the list of the cursors of all pages."""
        true, given = self.sse.cursor, []

        def cursor(zone: str) -> str:
            given.append(true(zone) if given else NOWHERE)
            return given[-1]

        monkeypatch.setattr(self.sse, "cursor", cursor)
        return given


@pytest.fixture
def start(libraries: Libraries, site: Any, tmp_path: Path, browser: Any) -> Iterator[Callable[[str], Example]]:
    """Give a function that starts an example from a copy of its folder."""
    started: list[Example] = []

    def run(name: str) -> Example:
        folder = tmp_path / name
        shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("static", ".venv"))
        (folder / "static").mkdir()
        for file, package, path in DOWNLOAD.findall((folder / "README.rst").read_text()):
            shutil.copy(libraries.npm(package, path), folder / "static" / file)
        if name == "datastar":
            for module_ in libraries.datastar():
                shutil.copy(module_, folder / "static")
        spec = importlib.util.spec_from_file_location(f"example_{name}", folder / "app.py")
        assert spec is not None and spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        started.append(Example(module, site))
        return started[-1]

    yield run
    for one in started:
        one.hub.close()
        del sys.modules[one.module.__name__]


Open = Callable[[str], Tab]
Start = Callable[[str], Example]


def test_turbo_adds_and_removes_tasks_in_all_pages(start: Start, open_tab: Open) -> None:
    example = start("turbo")
    example.post("/tasks", text="first")
    pages = [open_tab(example.url) for _ in range(2)]
    example.connected(2)
    pages[0].fill("input", HOSTILE)
    pages[0].click("form button")
    for page in pages:
        wait_for_browser(lambda page=page: len(page.texts("#tasks li")) == 2)
        assert HOSTILE in page.texts("#tasks li")[1] and page.run("return document.querySelector('img')") is None
    pages[1].click("#task-1 button")
    for page in pages:
        wait_for_browser(lambda page=page: len(page.texts("#tasks li")) == 1)
        assert page.run("return document.title") == "Tasks" and not page.was_reloaded


def test_turbo_shows_what_came_between_page_and_stream_once(
    start: Start, open_tab: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = start("turbo")
    true = example.sse.cursor

    def cursor(zone: str) -> str:
        taken = str(true(zone))
        example.post("/tasks", text="between")  # after the cursor, and before the data is read
        return taken

    monkeypatch.setattr(example.sse, "cursor", cursor)
    page = open_tab(example.url)
    monkeypatch.undo()
    example.connected(1)
    example.post("/tasks", text="after")
    wait_for_browser(lambda: len(page.texts("#tasks li")) > 1)
    assert page.run("return [...document.querySelectorAll('#tasks li')].map(e => e.id)") == ["task-1", "task-2"]


def test_turbo_refreshes_a_page_that_has_missed_something(
    start: Start, open_tab: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = start("turbo")
    rendered: list[str] = []
    cursor = example.sse.cursor
    monkeypatch.setattr(example.sse, "cursor", lambda zone: rendered.append(zone) or cursor(zone))
    page = open_tab(example.url)
    example.connected(1)
    # Turbo ignores a refresh while the page is being loaded. So the stream begins again, at an unknown place.
    page.run(
        "addEventListener('turbo:render', () => window.isRendered = true);"
        "const source = document.querySelector('turbo-stream-source'); source.remove();"
        "const address = source.getAttribute('src').replace(/lastEventId=[^&]*/, 'lastEventId=' + arguments[0]);"
        "source.setAttribute('src', address);"
        "document.body.append(source)",
        NOWHERE,
    )
    wait_for_browser(lambda: page.run("return window.isRendered"))  # a message before would be morphed away
    assert len(rendered) == 2
    example.post("/tasks", text="after")
    wait_for_browser(lambda: len(page.texts("#tasks li")) == 1)
    assert not page.was_reloaded  # the page was morphed


def test_htmx_2_adds_lines_and_counts_them(start: Start, open_tab: Open) -> None:
    example = start("htmx")
    example.post("/lines", text="first")
    pages = [open_tab(example.url) for _ in range(2)]
    example.connected(2)
    pages[0].fill("input", HOSTILE)
    pages[0].click("form button")
    for page in pages:
        page.wait_for("#lines li", "first", HOSTILE)
        page.wait_for("#count", "2")
        assert page.run("return document.title") == "Chat" and not page.was_reloaded


@pytest.mark.parametrize("name", ["htmx", "datastar"])
def test_a_page_that_has_missed_something_is_loaded_again(
    name: str, start: Start, open_tab: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = start(name)
    cursors = example.forget(monkeypatch)
    open_tab(example.url)
    wait_for_browser(lambda: len(cursors) == 2)
    example.connected(1)
    assert len(cursors) == 2


def test_datastar_moves_the_bars_of_all_pages(start: Start, open_tab: Open) -> None:
    example = start("datastar")
    example.post("/votes/tea")
    pages = [open_tab(example.url) for _ in range(2)]
    for number, page in enumerate(pages, 1):
        page.browser.switch_to.window(page.handle)  # Datastar closes the stream of a tab that is hidden
        page.wait_for("#total", str(number))
        page.wait_for("#bars b", str(number), "0", "0")
        page.click("#bars button")
        page.wait_for("#bars b", str(number + 1), "0", "0")
        page.wait_for("#total", str(number + 1))
    pages[0].click("#bars li:last-child button")
    pages[0].wait_for("#bars b", "3", "0", "1")
    assert "<water>" in pages[0].texts("#bars li")[2] and not pages[0].was_reloaded


def test_datastar_comes_back_when_the_hub_has_ended_its_stream(start: Start, open_tab: Open) -> None:
    example = start("datastar")
    page = open_tab(example.url)
    example.connected(1)
    example.hub.disconnect(example.hub.connections()[0].client_id)
    example.post("/votes/tea")
    page.wait_for("#total", "1")
    assert not page.was_reloaded


FOUR = """
<!doctype html>
<script src="/static/htmx.js"></script><script src="/static/hx-sse.js"></script>
<body><div id="live" {{ sse_source("chat", kind="htmx4", cursor=cursor) }}>nothing</div>
<ul id="lines"></ul><table><tbody id="rows"></tbody></table><p id="gone">here</p></body>
"""


def test_htmx_4_swaps_and_is_loaded_again(
    start: Start, libraries: Libraries, open_tab: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = start("htmx")
    static = Path(example.module.app.static_folder)
    for file in ("htmx.js", "ext/hx-sse.js"):
        shutil.copy(libraries.npm("htmx.org@4.0.1", f"dist/{file}"), static)
    cursors = example.forget(monkeypatch)
    example.module.app.view_functions["page"] = lambda: render_template_string(FOUR, cursor=example.sse.cursor("chat"))
    page = open_tab(example.url)
    wait_for_browser(lambda: len(cursors) == 2)
    example.connected(1)
    for message in (
        Message.html("<b>now</b>"),
        htmx.oob("lines", "<li>\n1</li>", "beforeend"),
        htmx.partial("#rows", "<tr><td>2</td></tr>", "beforeend"),
        htmx.oob("rows", "<tr><td>3</td></tr>", "beforeend", tag="tbody"),
        htmx.remove("gone"),
    ):
        example.sse.broadcast(message, zone="chat")
    page.wait_for("#live", "now")
    page.wait_for("#lines li", "\n1")
    page.wait_for("#rows > tr > td", "2", "3")
    page.wait_for("#gone")


TWO = """
<!doctype html>
<script src="/static/htmx.js"></script><script src="/static/sse.js"></script>
<body><div {{ sse_source("chat", kind="htmx") }}><div sse-swap="message" hx-swap="none">kept</div></div>
<table><tbody id="rows"><tr id="row"><td>1</td></tr></tbody></table><p id="gone">here</p></body>
"""


def test_htmx_2_swaps_out_of_band(start: Start, open_tab: Open) -> None:
    example = start("htmx")
    example.module.app.view_functions["page"] = lambda: render_template_string(TWO)
    page = open_tab(example.url)
    example.connected(1)
    for message in (
        htmx.oob("rows", "<tr><td>2</td></tr>", "beforeend", tag="tbody"),
        Message.html('<tr id="row" hx-swap-oob="true"><td>0</td></tr>'),
        htmx.remove("gone"),
    ):
        example.sse.broadcast(message, zone="chat")
    page.wait_for("#rows > tr > td", "0", "2")
    page.wait_for("#gone")
    page.wait_for("[sse-swap]", "kept")


def test_htmx_2_is_loaded_again_after_an_error_response(start: Start, open_tab: Open) -> None:
    example = start("htmx")
    example.post("/lines", text="first")
    page = open_tab(example.url)
    example.connected(1)
    example.post("/lines", text="second")
    page.wait_for("#lines li", "first", "second")
    left = example.refuse()
    example.hub.disconnect(example.hub.connections()[0].client_id)
    wait_for_browser(lambda: not left)
    example.post("/lines", text="third")
    wait_for_browser(lambda: page.was_reloaded)
    example.connected(1)
    example.post("/lines", text="fourth")
    page.wait_for("#lines li", "first", "second", "third", "fourth")


def test_turbo_is_loaded_again_after_an_error_response(start: Start, open_tab: Open) -> None:
    example = start("turbo")
    script = blocks((DOCS / "html.rst").read_text(), "html")[4].replace("5000", "50")
    template = Path(example.module.app.root_path) / "templates" / "page.html"
    template.write_text(template.read_text().replace("<body>", f"{script}<body>"))
    page = open_tab(example.url)
    example.connected(1)
    left = example.refuse()
    example.hub.disconnect(example.hub.connections()[0].client_id)
    wait_for_browser(lambda: not left)
    example.post("/tasks", text="meanwhile")
    wait_for_browser(lambda: page.was_reloaded)
    example.connected(1)
    example.post("/tasks", text="after")
    wait_for_browser(lambda: len(page.texts("#tasks li")) == 2)
