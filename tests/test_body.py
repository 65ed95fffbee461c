"""Body: a stream ends in order, whoever lets go of it, wherever."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator

import pytest

from ssehub import Connection, Hub
from tests.followers import Follower
from tests.streams import GUARD, until

MakeHub = Callable[..., Hub]


class Cycle:
    """Hold a stream in a reference cycle, so that only the garbage collector ends it."""

    def __init__(self, stream: Iterator[bytes]) -> None:
        self.me = self
        self.stream = stream
        next(stream)


def test_one_that_is_dropped_is_ended_and_its_hooks_are_called_where_nobody_waits(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat=3600)
    ended: list[str] = []
    hub.on_disconnect(lambda connection: ended.append(threading.current_thread().name))
    Cycle(hub.stream())
    gc.collect()
    until(lambda: ended)
    assert ended == ["ssehub-hooks"] and hub.connections() == []


@pytest.mark.parametrize("error", [None, SystemExit, KeyboardInterrupt])
def test_the_last_hooks_of_one_that_is_dropped_hold_up_nobody_and_end_nothing(
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
    until(lambda: len(other.chunks) > heard + 2)  # heartbeats go on
    go.set()
    assert connection.wait(GUARD)
    heard = len(other.chunks)
    until(lambda: len(other.chunks) > heard + 2)


def test_garbage_that_is_collected_under_the_hubs_locks_stops_nobody(make_hub: MakeHub) -> None:
    hub = make_hub(heartbeat=3600)
    hub.on_disconnect(lambda connection: hub.broadcast("gone"))
    stays = [hub.stream(client_id="stays") for _ in range(50)]
    for stream in stays:
        next(stream)
    before = gc.get_threshold()
    gc.set_threshold(5)  # nearly every list that the hub makes may set it off
    try:
        for n in range(300):
            Cycle(hub.stream(client_id="x"))
            hub.connections("default")
            hub.zones()
            hub.broadcast(str(n), exclude=["1"])
            hub.send("stays", "x")
    finally:
        gc.set_threshold(*before)
    # Not once: while another thread collects, this one's call does nothing.
    until(lambda: gc.collect() >= 0 and len(hub.connections()) == 50)
    for stream in stays:
        stream.close()  # type: ignore[attr-defined]


def test_one_that_was_never_begun_is_nothing(make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.stream()
    hub.stream().close()  # type: ignore[attr-defined]
    assert hub.stats()["opened"] == 0 and threading.active_count() == 1


def test_after_its_end_it_stays_ended(make_hub: MakeHub) -> None:
    hub = make_hub()
    stream = hub.stream()
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(stream)
