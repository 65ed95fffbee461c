"""A real browser for tests: a headless Chromium that all tests share. Each test opens its own tabs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.servers import missing
from tests.streams import GUARD, until

_ARGUMENTS = (
    "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "disable-dev-shm-usage", "disable-background-timer-throttling",
    "disable-renderer-backgrounding", "hide-scrollbars",
)  # fmt: skip


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return the browser. Tests use :func:`open_tab` instead."""
    try:
        from selenium import webdriver
    except ImportError:
        missing("selenium")
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        missing("chromium, or its chromedriver,")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # No speculative connections: in a threaded server, each would occupy a thread.
    options.add_experimental_option("prefs", {"net.network_prediction_options": 2})
    for argument in (*_ARGUMENTS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{argument}")
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


class Tab:
    """A tab with a page."""

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        browser.switch_to.new_window("tab")
        self.handle = browser.current_window_handle
        browser.get(url)
        self.run("window.isTheSame = true")

    @property
    def was_reloaded(self) -> bool:
        """Whether the page was loaded again."""
        return not self.run("return window.isTheSame")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript, and return its result."""
        self.browser.switch_to.window(self.handle)
        return self.browser.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """Return the text of the first element that matches a selector; ``""`` if there is none."""
        return str(self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that match a selector."""
        return list(self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector))

    def fill(self, selector: str, value: str) -> None:
        """Set the value of an input field."""
        self.run("document.querySelector(arguments[0]).value = arguments[1]", selector, value)

    def click(self, selector: str) -> None:
        """Click the first element that matches a selector."""
        self.run("document.querySelector(arguments[0]).click()", selector)

    def wait_for(self, selector: str, *texts: str) -> None:
        """Wait until the elements that match a selector have exactly these texts."""
        wait_for_browser(lambda: self.texts(selector) == list(texts), f"{texts} in {selector}")


def wait_for_browser(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait until a condition is true, as long as a browser may need on a busy machine."""
    return until(condition, what, 3 * GUARD)


@pytest.fixture
def open_tab(browser: Any) -> Iterator[Callable[[str], Tab]]:
    """Return a function that opens a page in a new tab. After the test, close the tabs, and delete the cookies."""
    first = browser.current_window_handle
    yield lambda url: Tab(browser, url)
    for handle in browser.window_handles:
        if handle != first:
            browser.switch_to.window(handle)
            browser.close()
    browser.switch_to.window(first)
    browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
