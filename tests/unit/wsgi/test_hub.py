"""Hub: routing, resuming, gaps, presence, hooks, limits and closing."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from ssehub import (
    ALL,
    Backlogged,
    Connection,
    Decoder,
    Gap,
    Hub,
    HubClosed,
    LogError,
    MemoryLog,
    Message,
    Packet,
    UnknownClient,
)
from tests.followers import Follower, only
from tests.servers import ROOT
from tests.streams import until

MakeHub = Callable[..., Hub]


# Routing


def test_each_address_reaches_exactly_its_receivers(make_hub: MakeHub) -> None:
    hub = make_hub()
    ada = Follower(hub, zone="a", client_id="ada")
    ada_in_b = Follower(hub, zone="b", client_id="ada")
    bob = Follower(hub, zone="b", client_id="bob")
    both = Follower(hub, zone=["a", "b"], client_id="both")
    queued = [
        hub.broadcast("all").queued,
        hub.broadcast("zone b", zone="b").queued,
        hub.send("ada", "ada").queued,
        hub.send("ada", "ada in b", zone="b").queued,
        hub.send("bob", "bob in a", zone="a").queued,
        hub.send("nobody", "nobody").queued,
        hub.broadcast("zone c", zone="c").queued,
        hub.send_message(Packet(Message("end"), broadcast=True)).queued,
    ]
    assert queued == [4, 3, 2, 1, 0, 0, 0, 4]
    ada.wait_for("all", "ada", "end")
    ada_in_b.wait_for("all", "zone b", "ada", "ada in b", "end")
    bob.wait_for("all", "zone b", "end")
    both.wait_for("all", "zone b", "end")


@pytest.mark.parametrize(
    ("value", "data"),
    [({"a": [1, "ä"]}, '{"a":[1,"ä"]}'), ([], "[]"), (7, "7"), (1.5, "1.5"), (True, "true"), ("x", "x")],
)
def test_any_value_can_be_sent_with_a_type_and_an_id(make_hub: MakeHub, value: Any, data: str) -> None:
    hub = make_hub()
    follower = Follower(hub, zone="a", client_id="ada")
    hub.broadcast(value)
    hub.broadcast(value, event="task", id="7", zone="a")
    hub.send("ada", value, event="mine", id="8", zone="a")
    only(hub).send(value, event="alone")
    follower.wait_for(data, data, data, data)
    sent = [event for event in follower.events if event.data == data]
    assert [event.event for event in sent] == ["message", "task", "mine", "alone"]
    assert [event.id for event in sent[1:3]] == ["7", "8"]
    hub.broadcast("", event="empty")  # as the error for an event without data advises
    until(lambda: follower.events[-1].event == "empty")


def test_default_converts_values_that_json_cannot_represent(make_hub: MakeHub) -> None:
    hub, when = make_hub(), datetime(2026, 1, 2)
    follower = Follower(hub, client_id="ada")
    hub.broadcast({"at": when}, default=str)
    hub.send("ada", [when], default=lambda value: value.year)
    only(hub).send(when, default=str)
    follower.wait_for('{"at":"2026-01-02 00:00:00"}', "[2026]", '"2026-01-02 00:00:00"')
    for send in (hub.broadcast, only(hub).send):
        with pytest.raises(TypeError, match=r"datetime is not JSON serializable.*default=str"):
            send(when)


def test_a_message_keeps_its_own_type_and_id(make_hub: MakeHub) -> None:
    hub = make_hub()
    for more in ({"event": "task"}, {"id": "7"}, {"default": str}):
        with pytest.raises(TypeError, match="its own event and id"):
            hub.broadcast(Message("x"), **more)
        with pytest.raises(TypeError, match="its own event and id"):
            hub.send("ada", Message("x"), **more)


def test_the_advice_in_an_error_works(make_hub: MakeHub) -> None:
    hub = make_hub()
    follower = Follower(hub)
    for nobody in (None, ALL):
        with pytest.raises(TypeError, match=r"use hub\.broadcast\(message\)"):
            hub.send(nobody, "x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"use ssehub\.ALL"):
        hub.broadcast("x", zone=None)  # type: ignore[arg-type]
    hub.broadcast("x", zone=ALL)
    with pytest.raises(TypeError, match=r"use ssehub\.ALL"):
        hub.connections(client_id=None)  # type: ignore[arg-type]
    assert len(hub.connections(client_id=ALL)) == 1
    for call in (hub.disconnect, hub.is_present, hub.get_metadata):  # each is about one client
        for nobody in (None, ALL):
            with pytest.raises(TypeError) as info:
                call(nobody)  # type: ignore[arg-type]
            assert "use ssehub.ALL" not in str(info.value)
    with pytest.raises(TypeError, match=r"use Message\.from_json\(None\)"):
        hub.broadcast(None)
    hub.broadcast(Message.from_json(None))
    follower.wait_for("x", "null")


def test_several_sessions_of_a_client_all_get_its_messages_and_none_replaces_another(make_hub: MakeHub) -> None:
    hub = make_hub()
    sessions = [Follower(hub, client_id="ada") for _ in range(3)]
    hub.send("ada", "one")
    for session in sessions:
        session.wait_for("one")
    sessions[1].leave(hub)
    assert hub.send("ada", "two").queued == 2
    for session in (sessions[0], sessions[2]):
        session.wait_for("one", "two")


def test_a_sender_can_exclude_its_own_session(make_hub: MakeHub) -> None:
    hub = make_hub()
    sender, other = Follower(hub), Follower(hub)
    assert hub.broadcast("hello", exclude=[sender.session_id]).queued == 1
    hub.broadcast("end")
    other.wait_for("hello", "end")
    sender.wait_for("end")


def test_send_with_require_raises_an_error_if_the_client_is_absent(make_hub: MakeHub) -> None:
    hub = make_hub()
    Follower(hub, client_id="ada", zone="a")
    assert hub.send("ada", "x", require=True).queued == 1
    with pytest.raises(UnknownClient, match="bob"):
        hub.send("bob", "x", require=True)
    with pytest.raises(UnknownClient):
        hub.send("ada", "x", zone="b", require=True)
    assert hub.stats()["messages"] == 1


def test_a_client_id_of_none_never_means_all_clients(make_hub: MakeHub) -> None:
    hub = make_hub()
    follower = Follower(hub)
    calls: list[Callable[[], Any]] = [
        lambda: hub.send(None, "x"),  # type: ignore[arg-type]
        lambda: hub.broadcast("x", zone=None),  # type: ignore[arg-type]
        lambda: hub.send("c", "x", zone=None),  # type: ignore[arg-type]
        lambda: hub.disconnect(None),  # type: ignore[arg-type]
        lambda: hub.is_present(None),  # type: ignore[arg-type]
        lambda: hub.connections(zone=None),  # type: ignore[arg-type]
        lambda: hub.connections(client_id=None),  # type: ignore[arg-type]
        lambda: hub.broadcast(None),  # type: ignore[arg-type]
    ]
    for each in calls:
        with pytest.raises((TypeError, ValueError)):
            each()
    hub.broadcast("end")
    follower.wait_for("end")


def test_a_message_to_a_single_session_is_not_in_the_log(make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.on_connection(lambda connection: connection.send(f"hello {connection.client_id}"))
    ada, bob = Follower(hub, client_id="ada"), Follower(hub, client_id="bob", since="oldest")
    hub.broadcast("end")
    ada.wait_for("hello ada", "end")
    bob.wait_for("hello bob", "end")
    connection = hub.connections(client_id="ada")[0]
    with pytest.raises(ValueError, match="id"):
        connection.send(Message("x", id="7"))
    ada.leave(hub)
    assert connection.send("too late") is False


def test_messages_to_a_single_session_are_bounded_and_the_sender_gets_an_error(make_hub: MakeHub) -> None:
    hub = make_hub(max_pending=3)
    follower = Follower(hub)
    connection = only(hub)
    follower.stop_reading()
    connection.send("blocks the reader")
    follower.wait_for("blocks the reader")
    for n in range(3):
        connection.send(str(n))
    with pytest.raises(Backlogged, match="3"):
        connection.send("one too many")
    follower.reading.set()
    follower.wait_for("blocks the reader", "0", "1", "2")
    connection.send("room again")
    follower.wait_for_last("room again")


# Slow clients, reconnections and gaps


def test_a_slow_client_falls_behind_and_then_receives_everything(make_hub: MakeHub) -> None:
    hub = make_hub(max_pending=5)
    slow, quick = Follower(hub), Follower(hub)
    slow.stop_reading()
    hub.broadcast("first")
    slow.wait_for("first")
    for n in range(1000):
        hub.broadcast(str(n))
    quick.wait_for_last("999")
    assert hub.stats()["behind"] == 1
    slow.reading.set()
    slow.wait_for("first", *map(str, range(1000)))
    quick.wait_for("first", *map(str, range(1000)))
    assert hub.stats()["behind"] == 0
    assert len(slow.chunks) < 100  # it caught up with several messages per chunk


def test_trimmed_messages_are_one_gap_with_their_exact_number(make_hub: MakeHub) -> None:
    hub = make_hub(MemoryLog(size=50), max_pending=5)
    gaps: list[tuple[str, Gap]] = []
    hub.on_gap(lambda connection, gap: gaps.append((connection.client_id, gap)))
    slow = Follower(hub, client_id="slow")
    slow.stop_reading()
    hub.broadcast("first")
    slow.wait_for("first")
    for n in range(1, 1001):
        hub.broadcast(str(n))
    slow.reading.set()
    slow.wait_for("first", "gap trimmed 950", *map(str, range(951, 1001)))
    assert [(who, gap.reason, gap.missed) for who, gap in gaps] == [("slow", "trimmed", 950)]
    assert hub.stats()["gaps"] == 1


def test_a_snapshot_sent_by_the_gap_hook_directly_follows_the_gap(make_hub: MakeHub) -> None:
    hub = make_hub(MemoryLog(size=3))
    hub.on_gap(lambda connection, gap: connection.send(Message("all anew", "snapshot")))
    start = hub.cursor()
    for n in range(10):
        hub.broadcast(str(n))
    Follower(hub, last_event_id=start).wait_for("gap trimmed 7", "all anew", "7", "8", "9")


def test_a_client_that_reconnects_continues_where_it_was(make_hub: MakeHub) -> None:
    hub = make_hub()
    first = Follower(hub, zone="a")
    for n in range(5):
        hub.broadcast(str(n), zone="a")
        hub.broadcast("not for a", zone="b")
    first.wait_for("0", "1", "2", "3", "4")
    Follower(hub, zone="a", last_event_id=first.events[3].id).wait_for("3", "4")


def test_a_client_can_resume_from_an_id_chosen_by_the_publisher(make_hub: MakeHub) -> None:
    hub = make_hub()
    for n in range(5):
        hub.broadcast(Message(str(n), id=f"order {n}"))
    Follower(hub, last_event_id="order 2").wait_for("3", "4")


@pytest.mark.parametrize(
    ("since", "expected"),
    [("oldest", ["0", "1", "2", "3", "4"]), (0, []), (2, ["3", "4"]), (99, ["0", "1", "2", "3", "4"]), (None, [])],
)
def test_a_new_client_starts_where_since_says(make_hub: MakeHub, since: Any, expected: list[str]) -> None:
    hub = make_hub()
    for n in range(5):
        hub.broadcast(str(n), zone="default")
        hub.broadcast("another zone", zone="other")
    follower = Follower(hub, since=since)
    hub.broadcast("end")
    follower.wait_for(*expected, "end")


def test_the_last_event_id_overrides_since(make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.broadcast("0")
    cursor = hub.cursor()
    hub.broadcast("1")
    Follower(hub, since="oldest", last_event_id=cursor).wait_for("1")


def test_no_message_is_lost_between_a_page_and_its_stream(make_hub: MakeHub) -> None:
    hub = make_hub()
    cursor = hub.cursor()
    hub.broadcast("while the page is on its way")
    Follower(hub, since=cursor).wait_for("while the page is on its way")


@pytest.mark.parametrize("since", [-1, "", 1.5, True, ["oldest"]])
def test_an_invalid_since_is_refused(make_hub: MakeHub, since: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="since"):
        make_hub().stream(since=since)


def test_after_a_restart_a_gap_precedes_the_messages_of_the_new_log(make_hub: MakeHub) -> None:
    before = make_hub()
    before.broadcast("before")
    cursor = before.cursor()
    after = make_hub()
    after.broadcast("after")
    Follower(after, last_event_id=cursor).wait_for("gap epoch None", "after")


def test_a_forged_or_foreign_id_leads_to_a_gap_and_the_stream_continues(make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.broadcast("earlier")
    follower = Follower(hub, last_event_id="something else")
    hub.broadcast("later")
    follower.wait_for("gap bad_id None", "later")
    assert follower.events[0].id == "something else"  # if it is disconnected before the gap, the gap is reported again


def test_more_messages_than_max_replay_are_a_gap_too_far(make_hub: MakeHub) -> None:
    hub = make_hub(max_replay=10)
    near, far = hub.cursor(), hub.cursor()
    for n in range(11):
        hub.broadcast(str(n))
        near = hub.cursor() if n == 0 else near
    Follower(hub, last_event_id=near).wait_for(*map(str, range(1, 11)))
    follower = Follower(hub, last_event_id=far)
    hub.broadcast("end")
    follower.wait_for("gap too_far 11", "end")


def test_the_cursor_of_a_quiet_client_moves_past_messages_to_others(make_hub: MakeHub) -> None:
    hub = make_hub(MemoryLog(size=10), heartbeat=0.05)
    quiet = Follower(hub, zone="quiet")
    for n in range(100):
        hub.broadcast(str(n), zone="busy")
    until(lambda: quiet.events[-1].id == hub.cursor(), "the cursor")
    moved = quiet.events[-1]
    assert (moved.event, moved.data) == ("ssehub.cursor", ".")
    back = Follower(hub, zone="quiet", last_event_id=moved.id or "")
    hub.broadcast("end", zone="quiet")
    back.wait_for("end")


def test_a_silent_stream_gets_only_comments(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat=0.02)
    follower = Follower(hub)
    until(lambda: len(follower.chunks) > 5)
    assert set(follower.chunks[1:]) == {b":\n\n"} and len(follower.events) == 1


def test_after_an_id_of_the_publisher_the_heartbeat_restores_the_cursor(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat=0.05)
    follower = Follower(hub)
    hub.broadcast(Message("x", id="own"))
    until(lambda: follower.events[-1].id == hub.cursor(), "the cursor")


def test_the_first_bytes_contain_retry_cursor_and_session(make_hub: MakeHub) -> None:
    hub = make_hub(retry=1234)
    follower = Follower(hub, client_id="ada")
    assert follower.decoder.reconnection_time == 1234
    opened = follower.events[0]
    assert (opened.event, opened.id) == ("ssehub.open", hub.cursor())
    assert opened.json() == {"session_id": only(hub).id, "client_id": "ada"}


def test_a_chunk_stays_small_regardless_of_the_number_of_messages(make_hub: MakeHub) -> None:
    hub = make_hub(max_pending=100)
    follower = Follower(hub)
    follower.stop_reading()
    hub.broadcast("first")
    follower.wait_for("first")
    big = "x" * 30_000
    for n in range(90):  # queued
        hub.broadcast(f"{n} {big}")
    only(hub).send("private, in its place")
    follower.reading.set()
    follower.wait_for("first", *(f"{n} {big}" for n in range(90)), "private, in its place")
    Follower(hub, since="oldest").wait_for("first", *(f"{n} {big}" for n in range(90)))  # read from the log
    assert max(map(len, follower.chunks)) < 64 * 1024 + 40_000


def test_eight_publishing_threads_and_reconnecting_clients_see_one_order(make_hub: MakeHub) -> None:
    hub = make_hub(MemoryLog(100_000), max_pending=20)
    staying = [Follower(hub) for _ in range(5)]
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            passing = Follower(hub)
            hub.send(passing.session_id, "nothing")
            passing.leave(hub)

    def publish(k: int) -> None:
        for n in range(300):
            hub.broadcast(f"{k} {n}")

    visitors = [threading.Thread(target=come_and_go) for _ in range(3)]
    publishers = [threading.Thread(target=publish, args=(k,)) for k in range(8)]
    for thread in visitors + publishers:
        thread.start()
    for thread in publishers:
        thread.join()
    done.set()
    for thread in visitors:
        thread.join()
    hub.broadcast("end")
    for follower in staying:
        follower.wait_for_last("end")
    orders = [follower.texts for follower in staying]
    assert all(order == orders[0] for order in orders)
    assert len(orders[0]) == len(set(orders[0])) == 8 * 300 + 1
    for follower in staying:
        offsets = [int((event.id or "").split(".")[1]) for event in follower.events]
        assert offsets == sorted(offsets)


def test_connecting_while_messages_are_sent_causes_no_gap_and_no_duplicate(make_hub: MakeHub) -> None:
    hub = make_hub(max_pending=4)
    stop = threading.Event()

    def publish() -> None:
        n = 0
        while not stop.is_set():
            hub.broadcast(str(n))
            n += 1

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        for _ in range(20):
            follower = Follower(hub)
            until(lambda follower=follower: len(follower.texts) > 50)
            follower.leave(hub)
            numbers = [int(text or "") for text in follower.texts if text != "go"]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    finally:
        stop.set()
        thread.join()


# Presence


def test_presence_zones_and_connections_follow_connects_and_disconnects(make_hub: MakeHub) -> None:
    hub = make_hub()
    ada, bob = Follower(hub, client_id="ada", zone=["a", "b"]), Follower(hub, client_id="bob", zone="b")
    assert hub.zones() == {"a": 1, "b": 2}
    assert hub.is_present("ada") and hub.is_present("ada", zone="a") and not hub.is_present("bob", zone="a")
    assert [one.client_id for one in hub.connections(zone="b")] == ["ada", "bob"]
    assert [one.id for one in hub.connections(client_id="ada")] == [ada.session_id]
    assert len(hub.connections()) == len(hub.connections(ALL, ALL)) == 2
    assert repr(hub.connections(zone="a")[0]) == f"<Connection 'ada' session {ada.session_id} in 'a', 'b', open>"
    ada.leave(hub)
    assert hub.zones() == {"b": 1} and not hub.is_present("ada")
    bob.leave(hub)
    assert hub.zones() == {} and hub.connections() == []


def test_metadata_belongs_to_the_client_and_ends_with_its_last_session(make_hub: MakeHub) -> None:
    hub = make_hub()
    first = Follower(hub, client_id="ada", metadata={"name": "Ada"})
    second = Follower(hub, client_id="ada")
    assert hub.get_metadata("ada") == {"name": "Ada"}
    hub.set_metadata("ada", {"name": "Countess"})
    assert all(one.metadata == {"name": "Countess"} for one in hub.connections(client_id="ada"))
    first.leave(hub)
    assert hub.get_metadata("ada") == {"name": "Countess"}
    second.leave(hub)
    for use in (lambda: hub.get_metadata("ada"), lambda: hub.set_metadata("ada", 1)):
        with pytest.raises(UnknownClient, match="ada"):
            use()


def test_disconnect_ends_only_the_given_streams(make_hub: MakeHub) -> None:
    hub = make_hub()
    reasons: list[tuple[str, str | None]] = []
    hub.on_disconnect(lambda connection: reasons.append((connection.client_id, connection.closed)))
    one, two, elsewhere = (Follower(hub, client_id="ada", zone=zone) for zone in ("a", "a", "b"))
    bob = Follower(hub, client_id="bob", zone="a")
    assert hub.disconnect("nobody") == 0
    assert hub.disconnect("ada", session_id=one.session_id) == 1
    one.join()
    assert hub.disconnect("ada", zone="a") == 1
    two.join()
    assert hub.disconnect("ada") == 1
    elsewhere.join()
    assert reasons == [("ada", "disconnected")] * 3
    hub.broadcast("still here")
    bob.wait_for("still here")


def test_disconnect_ends_a_stream_whose_body_has_not_started(make_hub: MakeHub) -> None:
    hub = make_hub()
    seen: list[Connection] = []
    hub.on_connection(seen.append)
    streams = {
        name: hub.stream(client_id=name, zone=zone)
        for name, zone in (("ada", "a"), ("eve", "b"), ("bob", "a"), ("guest", "a"))
    }
    assert hub.disconnect("ada") == 1 and hub.disconnect("ada") == 0
    assert hub.disconnect("eve", zone="a") == hub.disconnect("bob", session_id="x") == 0
    (end,) = streams.pop("ada")
    assert end.startswith(b"retry:") and b"ssehub.open" not in end and hub.stats()["refused"] == 1
    for stream in streams.values():
        assert b"ssehub.open" in next(stream)
        stream.close()  # type: ignore[attr-defined]
    assert [one.client_id for one in seen] == ["eve", "bob", "guest"]
    again = hub.stream(client_id="ada")
    assert b"ssehub.open" in next(again) and hub.disconnect("ada") == 1
    list(again)


def test_a_response_whose_body_is_never_read_is_forgotten(make_hub: MakeHub) -> None:
    hub = make_hub()
    stream = hub.stream(client_id="ada")
    del stream
    gc.collect()
    assert hub.disconnect("ada") == 0


# Hooks


def test_hooks_see_each_connection_once_with_the_reason_of_its_end(make_hub: MakeHub) -> None:
    hub = make_hub()
    log: list[str] = []
    hub.on_connection(lambda connection: log.append(f"+ {connection.client_id}"))
    hub.on_disconnect(lambda connection: log.append(f"- {connection.client_id} {connection.closed}"))
    ada = Follower(hub, client_id="ada")
    ada.leave(hub)
    Follower(hub, client_id="bob")
    only(hub).close("was rude")
    until(lambda: not hub.connections())
    Follower(hub, client_id="eve")
    hub.close()
    hub.close()
    assert log == ["+ ada", "- ada hang-up", "+ bob", "- bob was rude", "+ eve", "- eve shutdown"]


def test_a_hook_may_use_the_hub_and_may_raise(make_hub: MakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub = make_hub()

    @hub.on_connection
    def busy(connection: Connection) -> None:
        hub.broadcast(f"{connection.client_id} is here, we are {len(hub.connections())}")
        raise RuntimeError("on purpose")

    follower = Follower(hub, client_id="ada")
    follower.wait_for("ada is here, we are 1")
    assert "on purpose" in caplog.text


# Limits and closing


def test_a_full_hub_asks_clients_to_reconnect_later_and_registers_nothing(make_hub: MakeHub) -> None:
    hub = make_hub(max_connections=2, retry=1000)
    seen: list[str] = []
    hub.on_disconnect(lambda connection: seen.append(connection.client_id))
    first, second = Follower(hub), Follower(hub)
    refused = Follower(hub, client_id="third")
    refused.join()
    assert refused.events == [] and not hub.is_present("third")
    assert 5000 <= (refused.decoder.reconnection_time or 0) <= 10_000
    assert hub.stats()["refused"] == 1
    first.leave(hub)
    Follower(hub).wait_for()
    assert len(hub.connections()) == 2 and seen == [first.session_id]
    assert second.texts == []


def test_one_client_cannot_use_up_all_streams(make_hub: MakeHub) -> None:
    hub = make_hub(max_per_client=2)
    Follower(hub, client_id="ada")
    Follower(hub, client_id="ada")
    Follower(hub, client_id="ada").join()
    Follower(hub, client_id="bob")
    assert len(hub.connections(client_id="ada")) == 2 and hub.is_present("bob")


def test_a_stream_ends_at_its_max_age_and_its_client_reconnects(make_hub: MakeHub) -> None:
    hub = make_hub(max_age=0.05, retry=700)
    ended: list[str | None] = []
    hub.on_disconnect(lambda connection: ended.append(connection.closed))
    follower = Follower(hub)
    follower.join()
    assert ended == ["max_age"] and 700 <= (follower.decoder.reconnection_time or 0) <= 1400


def test_close_sends_pending_messages_ends_all_streams_and_refuses_new_ones(make_hub: MakeHub) -> None:
    hub = make_hub()
    followers = [Follower(hub) for _ in range(20)]
    hub.broadcast("last words")
    hub.close()
    for follower in followers:
        follower.join()
        assert follower.texts == ["last words"]
    late = Follower(hub)
    late.join()
    assert late.events == [] and late.decoder.reconnection_time is not None
    with pytest.raises(HubClosed):
        hub.broadcast("too late")
    assert hub.closed and hub.connections() == []


def test_close_from_a_connections_own_thread_does_not_wait_for_itself(make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.on_connection(lambda connection: hub.close(timeout=60))
    Follower(hub).join()


def test_the_repr_of_a_connection_is_one_printable_line(make_hub: MakeHub) -> None:
    hub = make_hub()
    Follower(hub, zone=["a", "\u202eb"], client_id="\u2066c")
    connection = only(hub)
    assert repr(connection) == (f"<Connection '\\u2066c' session {connection.id} in 'a', '\\u202eb', open>")


def test_waiting_for_the_end_of_a_connection_works(make_hub: MakeHub) -> None:
    hub = make_hub()
    follower = Follower(hub)
    connection = only(hub)
    assert connection.wait(0) is False
    assert connection.close() is True and connection.close("again") is False
    assert connection.wait(10) is True and connection.closed == "disconnected"
    follower.join()


def test_a_stream_that_is_never_started_registers_nothing(make_hub: MakeHub) -> None:
    hub = make_hub()
    stream = hub.stream(client_id="ada")
    assert hub.connections() == []
    stream.close()  # type: ignore[attr-defined]
    assert hub.stats()["opened"] == 0


def test_a_failing_log_affects_only_the_sender(make_hub: MakeHub) -> None:
    log = MemoryLog()
    hub = make_hub(log)
    follower = Follower(hub)
    log.close()
    with pytest.raises(LogError):
        hub.broadcast("x")
    hub.close()
    follower.join()
    assert follower.texts == []


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"heartbeat": 0}, ValueError, "heartbeat"),
        ({"heartbeat": float("nan")}, ValueError, "heartbeat"),
        ({"heartbeat": "15"}, TypeError, "heartbeat"),
        ({"heartbeat": None}, TypeError, "heartbeat"),
        ({"retry": -1}, ValueError, "retry"),
        ({"retry": 1.5}, TypeError, "retry"),
        ({"max_pending": 0}, ValueError, "max_pending"),
        ({"max_connections": 0}, ValueError, "max_connections"),
        ({"max_per_client": -3}, ValueError, "max_per_client"),
        ({"max_replay": True}, TypeError, "max_replay"),
        ({"max_age": float("inf")}, ValueError, "max_age"),
        ({"stall_timeout": 0}, ValueError, "stall_timeout"),
        ({"headers": {"Connection": "keep-alive"}}, ValueError, "Connection"),
        ({"headers": {"transfer-encoding": "chunked"}}, ValueError, "transfer-encoding"),
        ({"headers": {"Content-Type": "text/html"}}, ValueError, "Content-Type"),
        ({"headers": {"Content-Length": "7"}}, ValueError, "Content-Length"),
        ({"headers": {"X-A": "a\r\nSet-Cookie: b"}}, ValueError, "valid header"),
        ({"headers": {"X A": "a"}}, ValueError, "valid header"),
        ({"headers": {"X-A": "ü€"}}, ValueError, "valid header"),
        ({"headers": {"X-A": "a\x0bb"}}, ValueError, "valid header"),
        ({"headers": {"X-A": "\x7f"}}, ValueError, "valid header"),
        ({"headers": {"X(A": "a"}}, ValueError, "valid header"),
        ({"headers": {"X-Ä": "a"}}, ValueError, "valid header"),
        ({"headers": {"X-A": 1}}, TypeError, "str"),
        ({"refuse_with": 404}, ValueError, "refuse_with"),
    ],
)
def test_invalid_settings_are_refused(options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Hub(**options)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"zone": ""}, ValueError, "zone"),
        ({"zone": []}, ValueError, "zones"),
        ({"zone": None}, TypeError, "zone must be a zone's name, or a list of names, not None"),
        ({"zone": 5}, TypeError, "zone must be a zone's name, or a list of names, not 5"),
        ({"zone": ALL}, TypeError, "zone must be a zone's name, or a list of names, not ALL"),
        ({"zone": b"a"}, TypeError, "zone must be a zone's name, or a list of names, not b'a'"),
        ({"zone": [5]}, TypeError, "zone must be a str, not int"),
        ({"zone": [f"z{n}" for n in range(101)]}, ValueError, "100"),
        ({"zone": ["a", None]}, TypeError, "zone"),
        ({"zone": "a\rb"}, ValueError, "control"),
        ({"client_id": ""}, ValueError, "client_id"),
        ({"client_id": 7}, TypeError, "client_id"),
        ({"client_id": "x" * 256}, ValueError, "255"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_registered(
    make_hub: MakeHub, options: Any, error: type[Exception], text: str
) -> None:
    hub = make_hub()
    with pytest.raises(error, match=text):
        hub.stream(**options)
    with pytest.raises(error, match=text):
        hub.connect({"REQUEST_METHOD": "GET"}, **options)
    assert hub.stats()["opened"] == 0


def test_the_lock_for_the_state_of_a_process_is_patched_by_gevent() -> None:
    code = """
import ssehub.process_local
from gevent import monkey
monkey.patch_all()
from gevent.thread import LockType
print(isinstance(ssehub.process_local._making(), LockType))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    assert done.stdout == "True\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_its_own_hub_even_if_the_parent_held_locks(make_hub: MakeHub) -> None:
    hub = make_hub()
    follower = Follower(hub)
    reader, writer = os.pipe()
    hub.cursor()
    own, log = hub._own.dispatcher, hub._log
    with own._starting._lock, own.registry._lock, own.wakeups._lock, log._lock, own._connection_lock, log.history._lock:  # type: ignore[attr-defined]
        child = os.fork()
        if child == 0:  # pragma: no cover
            try:
                stream = hub.stream(client_id="child")
                first = next(stream)
                queued = hub.broadcast("in the child").queued
                rest = next(stream)
                here = len(hub.connections())
                os.write(writer, f"{queued} {here} {b'ssehub.open' in first} {b'in the child' in rest}".encode())
            finally:
                os._exit(0)
    os.close(writer)
    answer = os.read(reader, 1000).decode()
    os.close(reader)
    os.waitpid(child, 0)
    assert answer == "1 1 True True"
    hub.broadcast("in the parent")
    follower.wait_for("in the parent")


# Further cases


@pytest.mark.parametrize("to_one", [True, False])
def test_a_client_that_connects_during_a_delivery_misses_nothing(make_hub: MakeHub, to_one: bool) -> None:
    hub = make_hub()
    hub.cursor()
    registry = hub._own.dispatcher.registry
    receivers = registry.receivers
    came: list[threading.Thread] = []
    followers: list[Follower] = []

    def slowly(packet: Packet, partition: int) -> tuple[int, list[Connection] | None]:
        found = receivers(packet, partition)
        if not came:  # the sender waits here while the client connects
            came.append(threading.Thread(target=lambda: followers.append(Follower(hub, client_id="x"))))
            came[0].start()
            came[0].join(0.3)
        return found

    registry.receivers = slowly  # type: ignore[method-assign]
    if to_one:
        hub.send("x", "first")
    else:
        hub.broadcast("first", exclude=["nobody"])
    came[0].join()
    hub.broadcast("second")
    until(lambda: followers[0].texts[-1:] == ["second"])
    # It connected before the message was delivered; or after it, and then its first id is that of the message.
    assert followers[0].texts == ["first", "second"]


def test_max_age_ends_a_busy_stream_too(make_hub: MakeHub) -> None:
    hub = make_hub(max_age=0.1)
    stream = hub.stream()
    chunks = [next(stream)]

    def ended() -> bool:
        hub.broadcast("x")
        chunks.extend(chunk for chunk in [next(stream, None)] if chunk is not None)
        return not hub.connections()

    until(ended)
    assert b"retry: " in chunks[-1]


def test_a_cursor_of_another_log_is_an_epoch_gap_at_any_offset(make_hub: MakeHub) -> None:
    hub = make_hub(max_replay=5)
    for n in range(10):
        hub.broadcast(str(n))
    Follower(hub, last_event_id="1.2.00000000").wait_for("gap epoch None", "gap too_far 10")


def test_expired_messages_are_not_delivered(make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssehub.server.page_cache.FRESH", 0.05)
    hub = make_hub(MemoryLog(ttl=0.2))
    cursor = hub.cursor()
    hub.broadcast("old")
    Follower(hub, last_event_id=cursor).wait_for("old")
    until(lambda: hub._log.read(hub._log.locate(cursor), 1).gap)  # type: ignore[arg-type]
    Follower(hub, last_event_id=cursor).wait_for("gap trimmed 1")


def test_forwarded_messages_get_ids_of_this_log(make_hub: MakeHub) -> None:
    hub = make_hub()
    upstream = b"data: a\n\nid: 7\nevent: e\ndata: b\n\ndata: c\n\n"
    follower = Follower(hub)
    receipts = [hub.broadcast(message) for message in Decoder().feed(upstream)]
    follower.wait_for("a", "b", "c")
    ids = [event.id for event in follower.events if not event.event.startswith("ssehub.")]
    assert ids == [receipt.id for receipt in receipts] and len(set(ids)) == 3
    again = Follower(hub, last_event_id=ids[0])
    again.wait_for("b", "c")
    assert again.events[1].event == "e"


def test_a_closed_hub_leaves_a_shared_log_usable(make_hub: MakeHub) -> None:
    log = MemoryLog()
    hub = make_hub(log)
    hub.close()
    hub.cursor()
    make_hub(log).broadcast("taken over")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_closed_hub_is_closed_in_a_child_process_too(make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.close()
    child = os.fork()
    if not child:
        os._exit(0 if hub.closed else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_message_to_one_session_follows_the_messages_of_an_earlier_hub(make_hub: MakeHub) -> None:
    log = MemoryLog()
    first = make_hub(log)
    first.broadcast("old")
    first.close()
    second = make_hub(log)
    stream = second.stream(since="oldest")
    next(stream)
    sender = threading.Thread(target=lambda: only(second).send("private"))
    sender.start()
    sender.join()
    got = b""
    while b"private" not in got:
        got += next(stream)
    assert got.index(b"old") < got.index(b"private")
    stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("retry", [2 * 10**11, 10**12])
def test_very_long_reconnection_times_can_be_sent(make_hub: MakeHub, retry: int) -> None:
    hub = make_hub(retry=retry, max_connections=1)
    first, refused = hub.stream(), hub.stream()
    next(first)
    assert b"retry: " in b"".join(refused)
    only(hub).close()
    assert b"retry: " in b"".join(first)


def test_with_refuse_with_503_the_limit_per_client_returns_503_too(make_hub: MakeHub) -> None:
    hub = make_hub(max_per_client=1, refuse_with=503)
    stays = hub.stream(client_id="x")
    next(stays)
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET"}
    assert hub.connect(environ, client_id="x").status_code == 503
    assert hub.connect(environ, client_id="y").status_code == 200
    stays.close()  # type: ignore[attr-defined]


def test_excluding_one_session_does_not_exclude_the_clients_others(make_hub: Callable[..., Hub]) -> None:
    hub = make_hub()
    phone, laptop = hub.stream(client_id="ada"), hub.stream(client_id="ada")
    next(phone), next(laptop)
    mine = hub.connections(client_id="ada")[0]
    hub.send("ada", "read on the phone", exclude=[mine.id])
    hub.send("ada", "to both")
    assert b"read" not in next(phone) and b"read on the phone" in next(laptop)
    for stream in (phone, laptop):
        stream.close()
