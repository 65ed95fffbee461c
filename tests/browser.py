"""A real browser for tests: headless Chromium."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers import missing


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Run a browser while the block lasts.

    :param profile: an empty folder.
    """
    try:
        from selenium import webdriver
    except ImportError:
        missing("selenium")
    executable, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if executable is None or driver is None:
        missing("chromium, or its chromedriver,")
    options = webdriver.ChromeOptions()
    options.binary_location = executable
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "disable-dev-shm-usage", f"user-data-dir={profile}",
        "disable-background-timer-throttling", "disable-renderer-backgrounding",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield running
    finally:
        running.quit()
