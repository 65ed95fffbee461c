"""The example ticker: one producer for all clients, in the server's process or in one of its own."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.example_apps import EXAMPLES, imported, served
from tests.servers import ROOT, process
from tests.streams import GUARD, Stream, until


def producers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "ticker"]


@pytest.fixture
def ticker() -> Iterator[ModuleType]:
    with imported("ticker") as module:
        module.INTERVAL = 0.01
        yield module
    until(lambda: not producers())


@pytest.fixture
def port(ticker: ModuleType, site: Callable[[Any], Any]) -> int:
    number: int = site(ticker.app).port
    return number


def test_both_shares_come_with_ids_prices_and_times(port: int) -> None:
    stream = Stream(port, "/price")
    quotes = [stream.message() for _ in range(10)]
    assert [quote.event for quote in quotes] == ["AAPL", "AMZN"] * 5
    assert len({quote.id for quote in quotes}) == 10
    assert all(quote.json()["price"] > 0 for quote in quotes)
    times = [quote.json()["time"] for quote in quotes]
    assert times == sorted(times)


def test_one_thread_makes_the_same_prices_for_all_and_not_before_somebody_asks(port: int) -> None:
    assert producers() == []
    opened: list[Stream] = []
    threads = [threading.Thread(target=lambda: opened.append(Stream(port, "/price"))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    prices = [{quote.id: quote.data for quote in (stream.message() for _ in range(40))} for stream in opened]
    assert len(producers()) == 1
    shared = set.intersection(*(set(one) for one in prices))
    assert shared and all(len({one[id] for one in prices}) == 1 for id in shared)


def test_who_comes_later_sees_both_prices_at_once(ticker: ModuleType, port: int) -> None:
    ticker.first.acquire()  # so that no producer begins
    for quote in ticker.market.tick():
        ticker.hub.broadcast(quote, zone="prices")
    stream = Stream(port, "/price")
    assert stream.data(2) == [quote.data for quote in ticker.market.last]


def test_who_comes_back_misses_no_price(port: int) -> None:
    stream = Stream(port, "/price")
    place = stream.message().id or ""
    stream.close()
    other = Stream(port, "/price", {"Last-Event-ID": place})
    again = Stream(port, "/price", {"Last-Event-ID": place})
    quotes = [again.message() for _ in range(7)]
    assert [quote.event for quote in quotes] == ["AMZN", "AAPL"] * 3 + ["AMZN"]
    assert [other.message().id for _ in range(7)] == [quote.id for quote in quotes]


def test_who_has_missed_too_much_gets_the_prices_of_now(ticker: ModuleType, port: int) -> None:
    ticker.first.acquire()  # so that no producer begins
    now = [quote.data for quote in ticker.market.tick()]
    stream = Stream(port, "/price", {"Last-Event-ID": "0.1.x"})
    assert stream.message().event == "ssehub.gap"
    assert stream.data(2) == now


def test_under_gunicorn_it_ticks_and_ends_at_once() -> None:
    with served("ticker", "--preload", "--graceful-timeout", "3600") as (port, server):
        stream = Stream(port, "/price")
        assert {stream.message().event for _ in range(2)} == {"AAPL", "AMZN"}
        server.terminate()
        with pytest.raises(EOFError):  # and not another ten seconds of prices
            for _ in range(20):
                stream.event()
        stream.close()
        assert server.wait(2 * GUARD) == 0


def test_with_a_feed_of_its_own_two_workers_show_the_same_prices(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/ticker.db"
    feed = (sys.executable, str(EXAMPLES / "ticker" / "feed.py"), url)
    with served("ticker", "-w", "2", TICKER_LOG=url) as (port, _):
        streams = [Stream(port, "/price") for _ in range(6)]
        for stream in streams:
            stream.opened()
        with process(*feed, stop=signal.SIGINT, PYTHONPATH=str(ROOT)) as running:
            told = [[(quote.id, quote.data) for quote in (one.message(), one.message())] for one in streams]
            assert all(one == told[0] for one in told)
            later = Stream(port, "/price")
            assert [later.message().event, later.message().event] == ["AAPL", "AMZN"]
        assert running.returncode == 0
