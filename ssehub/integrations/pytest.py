"""pytest: fixtures for tests of applications that use ssehub. pytest finds them when ssehub is installed.

pytest imports this module at every start, even if no test uses it. So only the fixtures import the hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ssehub.testing import AppStream, FaultyLog, RecordedHub, Server


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "ssehub(**options): arguments of the Hub that the fixture ssehub_hub returns")


@pytest.fixture
def ssehub_log() -> FaultyLog:
    """Return the log of ``ssehub_hub``, which can fail on demand."""
    from ssehub.testing import FaultyLog

    return FaultyLog()


@pytest.fixture
def ssehub_hub(request: pytest.FixtureRequest, ssehub_log: FaultyLog) -> Iterator[RecordedHub]:
    """Return a new hub that records sent messages. It is closed after the test.

    ``@pytest.mark.ssehub(heartbeat=0.1)`` sets its arguments.
    """
    from ssehub.testing import RecordedHub

    marker = request.node.get_closest_marker("ssehub")
    options: dict[str, Any] = dict(marker.kwargs) if marker else {}
    hub = RecordedHub(ssehub_log, **options)
    yield hub
    hub.close()


@pytest.fixture
def ssehub_stream() -> Iterator[Callable[..., AppStream]]:
    """Return :func:`ssehub.testing.stream`. The streams that it opens are closed after the test."""
    from ssehub.testing import stream

    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(stream(*arguments, **options))


@pytest.fixture
def ssehub_server() -> Iterator[Callable[..., Server]]:
    """Return a function that serves an application on a free port until the end of the test."""
    from ssehub.testing import serve

    with ExitStack() as stack:
        yield lambda app: stack.enter_context(serve(app))
