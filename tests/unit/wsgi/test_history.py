"""Hub.history: messages of the log as a list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssehub import ALL, Hub, LogError, MemoryLog, Message, SQLiteLog
from tests.followers import Follower


@pytest.fixture(params=["memory", "sqlite"])
def hub(request: pytest.FixtureRequest, make_hub: Callable[..., Hub], tmp_path: Path) -> Hub:
    return make_hub(MemoryLog(10) if request.param == "memory" else SQLiteLog(tmp_path / "hub.db", size=10))


def data(page: Any) -> list[str | None]:
    return [message.data for message in page.messages]


def test_it_has_the_messages_of_the_zones_and_the_client_with_their_ids(hub: Hub) -> None:
    receipts = [
        hub.broadcast("to all"),
        hub.broadcast("to a", zone="a", event="news"),
        hub.broadcast("to b", zone="b"),
        hub.send("ada", "to ada"),
        hub.send("ada", "to ada in a", zone="a", id="own"),
        hub.send("bob", "to bob"),
    ]
    assert data(hub.history("a")) == ["to all", "to a"]
    assert data(hub.history(["a", "b"], client_id="ada")) == ["to all", "to a", "to b", "to ada", "to ada in a"]
    page = hub.history("a", client_id="ada")
    assert [message.id for message in page.messages] == [receipts[n].id for n in (0, 1, 3, 4)]
    assert page.messages[1] == Message("to a", "news", id=receipts[1].id)
    assert (page.has_more, page.gap) == (False, None)


def test_pages_join_without_a_hole_and_a_stream_goes_on_from_the_cursor(hub: Hub) -> None:
    for n in range(7):
        hub.broadcast(str(n), zone="ab"[n % 2])
    first = hub.history("a", limit=3)
    assert (data(first), first.has_more) == (["0", "2", "4"], True)
    second = hub.history("a", since=first.cursor, limit=3)
    assert (data(second), second.has_more) == (["6"], False)
    assert data(hub.history("a", since=second.cursor)) == []
    hub.broadcast("7", zone="a")
    follower = Follower(hub, zone="a", last_event_id=second.cursor)
    follower.wait_for("7")
    assert data(hub.history("a", since=2)) == ["6", "7"]
    assert data(hub.history("a", since=first.messages[-1].id)) == ["6", "7"]
    end = hub.history("a", since=None)
    assert data(end) == [] and data(hub.history("a", since=end.cursor)) == []


def test_a_limit_that_is_reached_exactly_says_whether_more_follow(hub: Hub) -> None:
    for n in range(3):
        hub.broadcast(str(n))
    hub.broadcast("elsewhere", zone="b")
    assert [hub.history("a", limit=limit).has_more for limit in (2, 3, 4)] == [True, False, False]


def test_missing_messages_are_a_gap_before_the_first_one(hub: Hub) -> None:
    start = hub.history(since=None).cursor
    for n in range(15):
        hub.broadcast(str(n))
    page = hub.history(since=start)
    assert page.gap is not None and (page.gap.reason, page.gap.missed) == ("trimmed", 5)
    assert data(page) == [str(n) for n in range(5, 15)]
    assert hub.history().gap is None  # "oldest" asks for what there is
    unknown = hub.history(since="unknown")
    assert unknown.gap is not None and unknown.gap.reason == "bad_id" and data(unknown) == []


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"zone": ""}, ValueError),
        ({"zone": ALL}, TypeError),
        ({"client_id": ""}, ValueError),
        ({"limit": 0}, ValueError),
        ({"limit": 1.5}, TypeError),
        ({"since": -1}, ValueError),
        ({"since": 1.5}, TypeError),
    ],
)
def test_wrong_arguments_are_refused(hub: Hub, wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        hub.history(**wrong)


def test_a_log_that_cannot_be_reached_is_an_error(make_hub: Callable[..., Hub], tmp_path: Path) -> None:
    hub = make_hub(SQLiteLog(tmp_path / "missing" / "hub.db"))
    with pytest.raises(LogError, match="no folder"):
        hub.history()
    assert "no folder" in hub.failing["log"]
    (tmp_path / "missing").mkdir()
    assert hub.history().messages == [] and hub.failing == {}
