"""pytest: fixtures for the tests of applications that use ssehub. pytest finds them where ssehub is installed.

It imports this module at every start, also where nobody uses it. So a hub is imported by the fixtures alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ssehub.testing import AppStream, FaultyLog, RecordedHub, Server


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "ssehub(**options): arguments of the Hub that the fixture ssehub_hub gives")


@pytest.fixture
def ssehub_log() -> FaultyLog:
    """Give the log of ``ssehub_hub``, which fails when it is told to."""
    from ssehub.testing import FaultyLog

    return FaultyLog()


@pytest.fixture
def ssehub_hub(request: pytest.FixtureRequest, ssehub_log: FaultyLog) -> Iterator[RecordedHub]:
    """Give a new hub that tells what was sent through it; it is closed after the test.

    ``@pytest.mark.ssehub(heartbeat=0.1)`` says its arguments.
    """
    from ssehub.testing import RecordedHub

    marker = request.node.get_closest_marker("ssehub")
    options: dict[str, Any] = dict(marker.kwargs) if marker else {}
    hub = RecordedHub(ssehub_log, **options)
    yield hub
    hub.close()


@pytest.fixture
def ssehub_stream() -> Iterator[Callable[..., AppStream]]:
    """Give :func:`ssehub.testing.stream`; what it opens is closed after the test."""
    from ssehub.testing import stream

    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(stream(*arguments, **options))


@pytest.fixture
def ssehub_server() -> Iterator[Callable[..., Server]]:
    """Give a function that serves an application on a free port until the test is over."""
    from ssehub.testing import serve

    with ExitStack() as stack:
        yield lambda app: stack.enter_context(serve(app))
