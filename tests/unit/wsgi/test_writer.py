"""Writer: one thread writes all streams that were taken over. Over real sockets, with a small WSGI server."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ssehub import Connection, Gap, Hub, LogError, MemoryLog
from ssehub.server.reader import Reader
from ssehub.testing import FaultyLog
from ssehub.wsgi import hook_pool, writer, writer_loop
from ssehub.wsgi.poller import Poller
from tests.followers import Follower, only
from tests.streams import GUARD, until

MakeHub = Callable[..., Hub]


@pytest.fixture
def detach(request: pytest.FixtureRequest) -> bool | None:
    """Return the setting ``detach`` of the hubs of these tests: True, unless a test sets it."""
    return getattr(request, "param", True)


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ssehub-writer"]


def test_many_streams_use_one_thread_and_no_server_thread(make_hub: MakeHub) -> None:
    hub = make_hub()
    followers = [Follower(hub) for _ in range(20)]
    assert hub.stats()["taken_over"] == hub.stats()["detached"] == 20 and len(writers()) == 1
    assert {connection.thread for connection in hub.connections()} == {0}
    hub.broadcast("hello")
    for follower in followers:
        follower.wait_for("hello")
    hub.close()
    for follower in followers:
        follower.join()
        assert b"retry: " in follower.chunks[-1]
    assert hub.stats()["taken_over"] == hub.stats()["detached"] == 0 and not writers()


def test_a_writer_that_fails_closes_its_streams_and_the_next_stream_gets_a_new_one(
    make_hub: MakeHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = make_hub()
    closed: list[str | None] = []
    hub.on_disconnect(lambda connection: closed.append(connection.closed))
    followers = [Follower(hub) for _ in range(3)]

    def fail(*args: Any) -> Any:
        raise MemoryError("a fault of the test")

    with monkeypatch.context() as patch:
        patch.setattr(Poller, "wait", fail)
        hub.broadcast("the poller is asked")
        for follower in followers:
            follower.join()
    until(lambda: closed == ["error"] * 3)
    until(lambda: not writers())
    assert sum("the writer has failed" in record.message for record in caplog.records) == 1
    again = Follower(hub, last_event_id=followers[0].decoder.last_event_id)
    hub.broadcast("and again")
    again.wait_for_last("and again")
    assert hub.stats()["taken_over"] == 1


def test_a_stream_that_fails_does_not_end_the_others(
    make_hub: MakeHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = make_hub()
    fails, goes_on = Follower(hub, client_id="fails"), Follower(hub)
    (connection,) = hub.connections(client_id="fails")
    take = Reader.take

    def fail(reader: Reader) -> Any:
        return take(reader) if reader is not connection.reader else 1 / 0

    monkeypatch.setattr(Reader, "take", fail)
    connection.send("x")
    fails.join()
    hub.broadcast("y")
    goes_on.wait_for("y")
    assert connection.closed == "error" and "a stream has failed" in caplog.text


def test_hooks_run_in_the_pool_and_their_messages_follow_the_gap(make_hub: MakeHub) -> None:
    hub = make_hub(MemoryLog(5))
    threads: list[tuple[str, str]] = []

    @hub.on_connection
    def greet(connection: Connection) -> None:
        threads.append(("on_connection", threading.current_thread().name.split(" ")[0]))
        connection.send("hello")

    @hub.on_gap
    def repair(connection: Connection, gap: Gap) -> None:
        threads.append(("on_gap", threading.current_thread().name))
        connection.send("snapshot")

    hub.on_disconnect(lambda connection: threads.append(("on_disconnect", threading.current_thread().name)))
    cursor = hub.cursor()
    for n in range(10):
        hub.broadcast(str(n))
    follower = Follower(hub, last_event_id=cursor)
    follower.wait_for("hello", "gap trimmed 5", "snapshot", "5", "6", "7", "8", "9")
    connection = only(hub)
    connection.close()
    follower.join()
    assert connection.wait(GUARD)
    assert [name for name, _ in threads] == ["on_connection", "on_gap", "on_disconnect"]
    assert threads[0][1] != "ssehub-hooks" and {name for _, name in threads[1:]} == {"ssehub-hooks"}


def test_a_hook_that_hangs_blocks_only_its_own_stream_and_is_logged(
    make_hub: MakeHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_pool, "_HANGS", 0.05)
    hub = make_hub(MemoryLog(2), heartbeat=0.1)
    release, finished = threading.Event(), []
    hub.on_gap(lambda connection, gap: release.wait(GUARD) if connection.client_id.startswith("hangs") else None)
    hub.on_disconnect(lambda connection: finished.append(connection.client_id))
    cursor = hub.cursor()
    for n in range(5):
        hub.broadcast(str(n))
    hanging = [Follower(hub, client_id=f"hangs {n}", last_event_id=cursor) for n in range(6)]
    until(lambda: "on_gap of <Connection 'hangs" in caplog.text and "has been running" in caplog.text)
    other = Follower(hub, client_id="other", last_event_id=cursor)
    other.wait_for("gap trimmed 3", "3", "4")
    hub.disconnect("other")
    other.join()
    until(lambda: finished == ["other"])
    assert all(follower.texts == [] for follower in hanging)
    release.set()
    for follower in hanging:
        follower.wait_for("gap trimmed 3", "3", "4")


def test_a_log_that_cannot_be_read_ends_the_streams_that_have_to_read(make_hub: MakeHub) -> None:
    log = FaultyLog()
    hub = make_hub(log)
    follower = Follower(hub)
    hub.broadcast("a")
    follower.wait_for("a")
    connection = only(hub)
    with log.away():
        with pytest.raises(LogError):
            hub.broadcast("b")
        assert connection.closed is None
        log._check = lambda: None if threading.current_thread().name != "ssehub-writer" else FaultyLog._check(log)  # type: ignore[method-assign]
        hub.broadcast("c")
        follower.join()
    assert connection.closed == "log" and b"retry: " in follower.chunks[-1]


def test_for_a_slow_client_at_most_one_piece_is_buffered(make_hub: MakeHub) -> None:
    hub = make_hub(MemoryLog(100_000))
    slow, quick = Follower(hub), Follower(hub)
    slow.stop_reading()
    for n in range(2000):
        hub.broadcast(f"{n} {'x' * 1000}")
    quick.wait_for_last(f"1999 {'x' * 1000}")
    loop = hub._own.streams._writer._loop
    assert loop is not None
    rests = [len(stream.rest) for stream in loop.streams.values() if stream.rest is not None]
    assert len(rests) == 1 and rests[0] < 2 * 65536 + 1000
    slow.reading.set()
    slow.wait_for_last(f"1999 {'x' * 1000}")
    assert slow.texts == quick.texts and len(slow.texts) == 2000


def test_a_client_that_reads_a_little_from_time_to_time_is_not_cut(make_hub: MakeHub) -> None:
    hub = make_hub(stall_timeout=0.3, heartbeat=0.1)
    follower = Follower(hub)
    hub.broadcast("x" * 100_000)
    began = time.monotonic()
    while time.monotonic() < began + 1.0:  # longer than the timeout, but with regular reads
        follower.stop_reading()
        follower.reading.set()
        hub.broadcast("x" * 1000)
    assert only(hub).closed is None


def test_messages_can_be_sent_after_end_streams(make_hub: MakeHub) -> None:
    hub = make_hub()
    follower = Follower(hub)
    hub.broadcast("a")
    follower.wait_for("a")
    hub.end_streams()
    follower.join()
    receipt = hub.broadcast("b")
    assert hub.closed and receipt.queued == 0
    late = Follower(hub)  # it is asked to reconnect
    late.join()
    assert b"retry: " in late.chunks[0] and hub.stats()["refused"] == 1


def test_a_busy_sender_does_not_starve_the_writer(make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_loop, "_AHEAD", 100)
    hub = make_hub(MemoryLog(2000))
    followers = [Follower(hub, client_id=str(n)) for n in range(50)]
    for n in range(10_000):
        hub.send(str(n % 50), str(n))
    for k, follower in enumerate(followers):
        follower.wait_for(*(str(n) for n in range(k, 10_000, 50)))


def test_a_child_process_keeps_no_stream_open(make_hub: MakeHub) -> None:
    hub = make_hub()
    follower = Follower(hub)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    hub.disconnect(only(hub).client_id)
    follower.join()  # although the child has a copy of the socket
    os.write(go[1], b"x")
    os.waitpid(child, 0)
    for number in (*ready, *go):
        os.close(number)


def test_heartbeats_contain_the_current_cursor(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat=0.05)
    follower = Follower(hub, zone="quiet")
    for n in range(3):
        hub.broadcast(str(n), zone="busy")
    until(lambda: follower.decoder.last_event_id == hub.cursor())
    until(lambda: follower.chunks[-1] == b":\n\n")
    assert follower.texts == []


def test_max_age_ends_a_stream_and_asks_for_a_reconnection(make_hub: MakeHub, caplog: pytest.LogCaptureFixture) -> None:
    hub = make_hub(max_age=0.1)
    with caplog.at_level(logging.WARNING):
        follower = Follower(hub)
        connection = only(hub)
        follower.join()
    assert connection.closed == "max_age" and b"retry: " in follower.chunks[-1] and not caplog.records


def test_two_clients_that_resume_at_the_same_place_both_get_everything(
    make_hub: MakeHub,
) -> None:
    hub = make_hub(heartbeat=3600)
    cursor = hub.cursor()
    hub.broadcast("1")
    Follower(hub, last_event_id=cursor).wait_for("1")
    hub.broadcast("2")
    Follower(hub, last_event_id=cursor).wait_for("1", "2")


def test_heartbeats_and_max_age_work_after_a_full_socket(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat=0.1, stall_timeout=3600)
    follower = Follower(hub)
    follower.stop_reading()
    hub.broadcast("x" * 300_000)
    until(lambda: hub._own.streams._writer._loop.streams[only(hub)].rest is not None)  # type: ignore[union-attr]
    follower.reading.set()
    follower.wait_for("x" * 300_000)
    count = len(follower.chunks)
    until(lambda: len(follower.chunks) > count + 2)


def test_no_message_to_a_session_is_lost_if_several_threads_send_the_first(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat=3600)
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            follower = Follower(hub)
            connection = next(one for one in hub.connections() if one.id == follower.session_id)
            threads = [threading.Thread(target=connection.send, args=(str(n),)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            until(lambda: sorted(map(str, follower.texts)) == ["0", "1", "2", "3"])  # noqa: B023
            connection.close()
            follower.join()
    finally:
        sys.setswitchinterval(switching)


def test_the_hooks_of_a_connection_never_run_at_the_same_time(make_hub: MakeHub) -> None:
    hub = make_hub(MemoryLog(2))
    order: list[str] = []
    in_gap, go_on = threading.Event(), threading.Event()

    @hub.on_gap
    def slowly(connection: Connection, gap: Gap) -> None:
        order.append("gap begins")
        in_gap.set()
        go_on.wait(GUARD)
        order.append("gap ends")

    hub.on_disconnect(lambda connection: order.append("disconnect"))
    cursor = hub.cursor()
    for n in range(5):
        hub.broadcast(str(n))
    follower = Follower(hub, last_event_id=cursor)
    assert in_gap.wait(GUARD)
    connection = only(hub)
    threading.Timer(0.2, go_on.set).start()
    connection.close("hang-up")
    follower.join()
    assert connection.wait(GUARD) and order == ["gap begins", "gap ends", "disconnect"]


@pytest.mark.parametrize("detach", [True, None], ids=["detached", "parked"], indirect=True)
def test_a_writer_that_ends_also_ends_streams_not_yet_adopted(
    make_hub: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub = make_hub()
    gone: list[str] = []
    hub.on_disconnect(lambda connection: gone.append(connection.client_id))
    first = Follower(hub, client_id="first", socket=True)
    loop = hub._own.streams._writer._loop
    assert loop is not None
    busy, go_on = threading.Event(), threading.Event()

    def fail() -> None:
        busy.set()
        go_on.wait(GUARD)
        raise MemoryError("a fault of the test")

    loop.note(fail)
    assert busy.wait(GUARD)
    late = threading.Thread(target=lambda: Follower(hub, client_id="late", socket=True).join())
    late.start()
    until(lambda: len(hub.connections()) == 2 and loop.expected == 2)
    go_on.set()
    first.join()
    late.join(GUARD)
    until(lambda: sorted(gone) == ["first", "late"])
    assert not late.is_alive() and hub.connections() == [] and hub.stats()["taken_over"] == 0
    assert "the writer has failed" in caplog.text


def test_a_peer_without_acknowledgements_is_gone_even_while_messages_are_sent(
    make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssehub.wsgi.sockets.unanswered", lambda sock: 99.0)
    hub = make_hub(heartbeat=0.1)
    Follower(hub)
    connection = only(hub)

    def is_gone() -> bool:
        hub.broadcast("x")
        return connection.closed is not None

    until(is_gone)
    assert connection.closed == "hang-up"


def test_senders_do_not_wait_for_a_writer_that_has_ended(make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_loop, "_AHEAD", 0)
    monkeypatch.setattr(writer, "_GIVE_WAY", 3600.0)
    hub = make_hub()
    follower = Follower(hub)
    hub.end_streams()
    follower.join()
    for n in range(10):
        hub.broadcast(str(n))  # a sender that waits would wait for an hour


def test_without_a_thread_or_descriptor_for_the_writer_a_stream_stays_on_its_thread(
    make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> Any:
        raise OSError(24, "Too many open files")

    hub = make_hub()
    with monkeypatch.context() as patch:
        patch.setattr(writer_loop, "Poller", fail)
        follower = Follower(hub)
        hub.broadcast("hello")
        follower.wait_for("hello")
    assert hub.stats()["taken_over"] == 0 and list(hub.stats()["not_taken"].values()) == [1]


def test_a_delay_is_counted_once_for_each_stream(make_hub: MakeHub) -> None:
    hub = make_hub()
    slow, quick = Follower(hub), Follower(hub)
    slow.stop_reading()
    hub.broadcast("x" * 300_000)
    quick.wait_for("x" * 300_000)
    slow.reading.set()
    slow.wait_for("x" * 300_000)
    until(lambda: sum(hub.stats()["delays"]["counts"]) == 2)
    assert hub.stats()["delivered"] == 2


def test_messages_that_exclude_a_session_are_sent_to_all_others_together(make_hub: MakeHub) -> None:
    hub = make_hub()
    followers = [Follower(hub) for _ in range(5)]
    for n in range(5):
        assert hub.broadcast(str(n), exclude=[followers[n].session_id]).queued == 4
    for n, follower in enumerate(followers):
        follower.wait_for(*(str(k) for k in range(5) if k != n))
