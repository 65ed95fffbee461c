"""Body: a stream ends properly, wherever its last reference is dropped."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from ssehub import Connection, Hub, LogError, MemoryLog, Message, Packet, testing
from tests.followers import Follower
from tests.streams import GUARD, until

MakeHub = Callable[..., Hub]


class Cycle:
    """A reference cycle with a stream, so that only the garbage collector ends it."""

    def __init__(self, stream: Iterator[bytes]) -> None:
        self.me = self
        self.stream = stream
        next(stream)


def test_a_dropped_stream_ends_and_its_hooks_run_in_another_thread(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat=3600)
    ended: list[str] = []
    hub.on_disconnect(lambda connection: ended.append(threading.current_thread().name))
    Cycle(hub.stream())
    gc.collect()
    until(lambda: ended)
    assert ended == ["ssehub-hooks"] and hub.connections() == []


@pytest.mark.parametrize("error", [None, SystemExit, KeyboardInterrupt])
def test_the_last_hooks_of_a_dropped_stream_block_no_other_stream(
    make_hub: MakeHub, error: type[BaseException] | None
) -> None:
    hub = make_hub(heartbeat=0.05)
    other = Follower(hub, client_id="other")
    hooked, go = threading.Event(), threading.Event()

    @hub.on_disconnect
    def slow(connection: Connection) -> None:
        if connection.client_id == "dropped":
            hooked.set()
            go.wait(GUARD)
            if error is not None:
                raise error

    stream = hub.stream(client_id="dropped")
    Cycle(stream)
    (connection,) = hub.connections(client_id="dropped")
    del stream
    gc.collect()
    assert hooked.wait(GUARD)
    heard = len(other.chunks)
    until(lambda: len(other.chunks) > heard + 2)  # heartbeats continue
    go.set()
    assert connection.wait(GUARD)
    heard = len(other.chunks)
    until(lambda: len(other.chunks) > heard + 2)


def test_garbage_collection_under_the_hubs_locks_does_not_deadlock(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat=3600)
    hub.on_disconnect(lambda connection: hub.broadcast("gone"))
    stays = [hub.stream(client_id="stays") for _ in range(50)]
    for stream in stays:
        next(stream)
    before = gc.get_threshold()
    gc.set_threshold(5)  # nearly every list that the hub creates may trigger it
    try:
        for n in range(300):
            Cycle(hub.stream(client_id="x"))
            hub.connections("default")
            hub.zones()
            hub.broadcast(str(n), exclude=["1"])
            hub.send("stays", "x")
    finally:
        gc.set_threshold(*before)
    # Repeatedly, because the call does nothing while another thread collects.
    until(lambda: gc.collect() >= 0 and len(hub.connections()) == 50)
    for stream in stays:
        stream.close()  # type: ignore[attr-defined]


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ssehub")]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("detach", [None, False])
def test_a_collected_hub_leaves_no_thread_and_no_descriptor(detach: bool | None) -> None:
    gc.collect()
    before = descriptors()
    for _ in range(3):
        hub = Hub(detach=detach)
        with testing.stream(lambda environ, start, connect=hub.connect: connect(environ)(environ, start)) as opened:
            assert opened.opened["session_id"]
    assert own_threads()
    del hub, opened
    until(lambda: gc.collect() >= 0 and not own_threads())
    until(lambda: descriptors() <= before)


def test_a_collected_hub_serves_its_streams_until_they_end_and_closes_its_log() -> None:
    log = MemoryLog()
    hub = Hub(log, heartbeat=0.05)
    first, later = hub.stream(client_id="ada"), hub.stream()
    next(first)
    collected = weakref.ref(hub)
    del hub
    until(lambda: gc.collect() >= 0 and collected() is None)
    log.append(Packet(Message("hello"), broadcast=True))
    assert b"hello" in next(first) and b"ssehub.open" in next(later)
    first.close()  # type: ignore[attr-defined]
    assert b":" in next(later)  # its heartbeat
    later.close()  # type: ignore[attr-defined]
    until(lambda: not own_threads())
    with pytest.raises(LogError, match="closed"):
        log.append(Packet(Message("x"), broadcast=True))


def test_a_stream_that_never_started_has_no_effect(make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.stream()
    hub.stream().close()  # type: ignore[attr-defined]
    assert hub.stats()["opened"] == 0 and threading.active_count() == 1


def test_a_stream_that_ended_stays_ended(make_hub: MakeHub) -> None:
    hub = make_hub()
    stream = hub.stream()
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(stream)
