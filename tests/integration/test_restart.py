"""A restart under load costs no client a message: the benchmark of it, in small."""

from __future__ import annotations

import contextlib

import pytest

from benchmarks.restart import Case, Restart, Server, largest
from tests.redis_server import RedisServer

STREAMS = 50


@pytest.mark.parametrize(("worker", "signal"), [("gthread", "SIGTERM"), ("gevent", "SIGHUP")])
def test_no_message_is_missed_and_none_comes_twice(redis_server: RedisServer, worker: str, signal: str) -> None:
    case = Case(worker, signal, hook=True)
    url = redis_server.url.replace("/0", "/2" if signal == "SIGTERM" else "/3")
    with contextlib.ExitStack() as stack:
        server = Server(case, STREAMS, url, retry=50)
        stack.callback(server.close)
        restart = Restart(case, server, url, STREAMS, rate=50, steady=0.2)
        stack.callback(restart.close)
        result = restart.run()
    assert result.sent > 10
    assert (result.missed, result.doubled, result.gaps) == (0, 0, 0)


def test_the_largest_number_within_a_while_is_counted() -> None:
    assert largest([], 0.1) == 0
    assert largest([0.0, 0.5, 0.55, 0.58, 0.7], 0.1) == 3
