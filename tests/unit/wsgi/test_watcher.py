"""Watcher: disconnections and stalls on real sockets."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ssehub import Connection, Hub, MemoryLog
from ssehub.server.settings import HubSettings
from ssehub.wsgi import sockets
from ssehub.wsgi.watcher import Watcher
from tests.conftest import Site
from tests.servers import connected
from tests.streams import GUARD, until

MakeHub = Callable[..., Hub]
Serve = Callable[[Any], Site]


class Watched:
    """A fake connection."""

    def __init__(self) -> None:
        self.connection: Any = self
        self.writing_since: float | None = None
        self.alarm = float("inf")
        self.reasons: list[str] = []
        self.asked = threading.Event()

    def wake(self) -> None:
        self.asked.set()

    def close(self, reason: str) -> bool:
        self.reasons.append(reason)
        self.asked.set()
        return True


@pytest.fixture(params=["epoll", "selector"])
def watching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    """Return a watcher with each kind of poller: epoll, and the one for other systems."""
    if request.param == "selector":
        monkeypatch.delattr(select, "epoll", raising=False)
    elif not hasattr(select, "epoll"):
        pytest.skip("this system has no epoll")
    one = Watcher(HubSettings(heartbeat=60, stall_timeout=60), lambda: None)
    yield one
    one.close()


def test_a_disconnection_is_noticed_without_a_write(watching: Watcher) -> None:
    stays, leaves = Watched(), Watched()
    with connected() as (near, far), connected() as (other, _):
        watching.watch(leaves, near.fileno())
        watching.watch(stays, other.fileno())
        far.close()
        assert leaves.asked.wait(GUARD)
        assert (leaves.reasons, stays.reasons) == (["hang-up"], [])


def test_a_reset_is_noticed_too(watching: Watcher) -> None:
    watched = Watched()
    with connected() as (near, far):
        watching.watch(watched, near.fileno())
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        assert watched.asked.wait(GUARD)


def test_data_from_a_client_is_not_a_disconnection(watching: Watcher) -> None:
    chatty, leaver = Watched(), Watched()
    with connected() as (near, far), connected() as (other, far_other):
        watching.watch(chatty, near.fileno())
        far.sendall(b"GET / HTTP/1.1\r\n\r\n")
        watching.watch(leaver, other.fileno())
        far_other.close()
        assert leaver.asked.wait(GUARD)
        assert chatty.reasons == []
        assert near.recv(100) == b"GET / HTTP/1.1\r\n\r\n"


def test_a_reused_descriptor_is_another_connection(watching: Watcher) -> None:
    first, second = Watched(), Watched()
    with connected() as (near, far):
        watching.watch(first, near.fileno())
        watching.unwatch(first)
        watching.watch(second, near.fileno())
        far.close()
        assert second.asked.wait(GUARD)
        assert first.reasons == []


def test_a_write_that_takes_too_long_is_cut() -> None:
    one, watched = Watcher(HubSettings(heartbeat=60, stall_timeout=0.1), lambda: None), Watched()
    try:
        with connected() as (near, _):
            watched.writing_since = 0.0
            one.watch(watched, near.fileno())
            with pytest.raises(OSError):
                while True:  # fills the kernel's buffers, blocks, and then continues
                    near.send(b"x" * 65536)
            assert watched.reasons[0] == "stalled"
    finally:
        one.close()


def test_close_ends_the_thread_and_is_idempotent(watching: Watcher) -> None:
    with connected() as (near, _):
        watching.watch(Watched(), near.fileno())
        assert any(thread.name == "ssehub-watcher" for thread in threading.enumerate())
        watching.close()
        watching.close()
        assert not any(thread.name == "ssehub-watcher" for thread in threading.enumerate())


def test_keep_alive_and_user_timeout_are_set_on_the_socket() -> None:
    with connected() as (near, _):
        sockets.tune(near.fileno(), heartbeat=15.0, stall_timeout=60.0)
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
            assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 65_000


def test_a_slow_reader_owes_no_acknowledgement() -> None:
    with connected() as (near, _):
        near.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                near.send(b"x" * 65536)
        until(lambda: sockets.unanswered(near) == 0.0)


def test_objects_without_a_socket_give_none() -> None:
    class Liar:
        def fileno(self) -> int:
            return 1

    assert sockets.find_socket({}) is None
    assert sockets.find_socket({"wsgi.input": object(), "werkzeug.socket": None}) is None
    assert sockets.find_socket({"gunicorn.socket": Liar()}) is None
    with connected() as (near, _):
        assert sockets.find_socket({"gunicorn.socket": near}) == near.fileno()
        near.close()
        assert sockets.find_socket({"gunicorn.socket": near}) is None


def test_a_client_that_stops_reading_is_cut_without_affecting_others(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub(MemoryLog(100_000), stall_timeout=0.5, heartbeat=60)
    gone: list[Connection] = []
    hub.on_disconnect(gone.append)
    here = site(lambda environ, start: hub.connect(environ)(environ, start))
    stalled, healthy = here.stream(), here.stream()
    stalled_id = stalled.opened()["session_id"]
    healthy.opened()
    n = 0
    while not gone:
        hub.broadcast(f"{n} {'x' * 65536}")
        assert (healthy.message().data or "").startswith(f"{n} ")
        n += 1
    assert [(one.id, one.closed) for one in gone] == [(stalled_id, "stalled")]
    assert hub.stats()["stalled"] == 1
    for stream in (stalled, healthy):
        stream.close()


def test_close_does_not_wait_for_a_stalled_client(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub(stall_timeout=3600)
    here = site(lambda environ, start: hub.connect(environ)(environ, start))
    stalled = here.stream()
    stalled.opened()
    connection = hub.connections()[0]
    while connection.lag < 3:
        hub.broadcast("x" * 65536)
    hub.close(timeout=0.05)
    assert connection.wait(GUARD)
    stalled.close()


def test_a_late_report_of_a_disconnection_does_not_affect_the_next_client(watching: Watcher) -> None:
    first, second = Watched(), Watched()
    told, may_go_on, gone_on = threading.Event(), threading.Event(), threading.Event()
    hung_up = watching._hung_up

    def late(poller: Any, numbers: Any) -> None:
        numbers = list(numbers)
        if numbers and not told.is_set() and not first.reasons:
            told.set()
            assert may_go_on.wait(GUARD)
        hung_up(poller, numbers)
        if may_go_on.is_set():
            gone_on.set()

    watching._hung_up = late  # type: ignore[method-assign]
    with connected() as (near, far), connected() as (other, far_other):
        number = near.fileno()
        watching.watch(first, number)
        far.close()
        assert told.wait(GUARD)
        watching.unwatch(first)
        os.dup2(other.fileno(), number)  # the descriptor belongs to another client now
        watching.watch(second, number)
        may_go_on.set()
        assert gone_on.wait(GUARD) and second.reasons == []
        far_other.close()
        assert second.asked.wait(GUARD)
    assert first.reasons == [] and second.reasons == ["hang-up"]


def test_a_watcher_that_cannot_start_its_thread_tries_again_later(
    make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = make_hub(heartbeat=0.05)

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        chunks = list(hub.stream())
    assert chunks[-1].startswith(b"retry: ")  # without heartbeats, so the client is asked to reconnect
    stream = hub.stream()
    next(stream)
    assert next(stream) == b":\n\n"  # a heartbeat, so the watcher is running
    stream.close()  # type: ignore[attr-defined]
    hub.close()


@pytest.mark.parametrize(("heartbeat", "stall_timeout"), [(40_000.0, 60.0), (15.0, 1e9), (1e9, 1e9)])
def test_very_long_times_are_limited_to_the_kernels_maximum(heartbeat: float, stall_timeout: float) -> None:
    with connected() as (near, _):
        sockets.tune(near.fileno(), heartbeat, stall_timeout)
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) >= 65_000
