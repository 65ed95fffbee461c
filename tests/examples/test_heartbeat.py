"""The example heartbeat: the server's time to those who ask, and streams that stay open behind an impatient proxy."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.example_apps import EXAMPLES, imported, served
from tests.servers import free_port, missing, process
from tests.streams import Stream, call, until


@pytest.fixture
def heartbeat() -> Iterator[ModuleType]:
    with imported("heartbeat") as module:
        module.SECOND = 0.01
        yield module
    until(lambda: not [one for one in threading.enumerate() if one.name == "clock"])


@pytest.fixture
def port(heartbeat: ModuleType, site: Callable[[Any], Any]) -> int:
    number: int = site(heartbeat.app).port
    return number


def test_who_asks_gets_the_time_again_and_again_and_the_news_between(port: int) -> None:
    stream = Stream(port, "/events?every=1")
    times = [stream.message() for _ in range(5)]
    assert {message.event for message in times} == {"time"}
    moments = [datetime.fromisoformat(message.data or "") for message in times]
    assert moments == sorted(moments) and len(set(moments)) > 1
    call(port, "POST", "/news", {"text": "hello"})
    while (message := stream.message()).event == "time":
        pass
    assert message.data == "hello"


def test_who_asks_for_a_longer_interval_gets_fewer(heartbeat: ModuleType, port: int) -> None:
    often, seldom = Stream(port, "/events?every=1"), Stream(port, "/events?every=5")
    for stream in (often, seldom):
        stream.message()  # the first comes at once
    seldom.data(3)
    call(port, "POST", "/news", {"text": "that is all"})
    counted = 0
    while often.message().event == "time":
        counted += 1
    assert counted >= 8


def test_who_does_not_ask_gets_the_news_alone(port: int) -> None:
    asking, quiet = Stream(port, "/events?every=1"), Stream(port, "/events")
    asking.data(5)
    call(port, "POST", "/news", {"text": "hello"})
    assert quiet.message().data == "hello"


def test_who_comes_back_gets_the_news_missed_and_no_old_times(heartbeat: ModuleType, port: int) -> None:
    stream = Stream(port, "/events?every=1")
    stream.data(5)
    place = stream.decoder.last_event_id
    stream.close()
    call(port, "POST", "/news", {"text": "missed"})
    again = Stream(port, "/events?every=60", {"Last-Event-ID": place})
    assert [again.message().event, again.message().data] == ["time", "missed"]


def test_an_interval_that_is_not_offered_is_a_400(port: int) -> None:
    for every in ("", "0", "2", "x"):
        assert call(port, "GET", f"/events?every={every}")[0] == 400, every


def test_one_clock_serves_all_and_ends_with_the_hub(heartbeat: ModuleType, port: int) -> None:
    for stream in [Stream(port, "/events?every=1") for _ in range(10)]:
        stream.data(2)
    assert len([one for one in threading.enumerate() if one.name == "clock"]) == 1


@contextlib.contextmanager
def behind_nginx(folder: Path, heartbeat: str) -> Iterator[Stream]:
    """Open a stream of the example with a heartbeat, through its proxy, which here cuts after one silent second."""
    folder.mkdir()
    front = free_port()
    with served("heartbeat", HEARTBEAT=heartbeat) as (port, _):
        text = (EXAMPLES / "heartbeat" / "nginx.conf").read_text()
        for old, new in ((":8080", f":{front}"), (":8000", f":{port}"), ("10s", "1s"), ("stderr", "nginx.log")):
            assert text.count(old) == 1
            text = text.replace(old, new)
        (folder / "nginx.conf").write_text(text)
        with process("nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")):
            until(lambda: _proxied(front), "nginx to answer")
            stream = Stream(front, "/events")
            stream.opened()
            yield stream


def test_a_heartbeat_shorter_than_a_proxys_patience_keeps_a_stream_and_a_longer_one_does_not(tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        missing("nginx")
    with behind_nginx(tmp_path / "a", "0.6") as stays, behind_nginx(tmp_path / "b", "30") as is_cut:
        with pytest.raises(http.client.IncompleteRead):
            is_cut.rest()
        raw = b""
        while raw.count(b":\n\n") < 2:  # two heartbeats are longer than the proxy's second
            chunk = stays.response.read1(65536)
            assert chunk, "the stream was cut"
            raw += chunk


def _proxied(port: int) -> bool:
    try:
        return call(port, "GET", "/nothing")[0] == 404
    except OSError:
        return False
