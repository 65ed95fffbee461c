"""Under gunicorn: streams end when a worker is to stop, and what will not do is said. Against real workers."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ssehub import Hub, MemoryLog, RedisLog
from ssehub.wsgi import warnings
from tests.matrix import APP
from tests.servers import answers, children, free_port, gunicorn, process
from tests.streams import GUARD, Stream, call, until

STREAMS = 20

HOOK = ("-c", "python:ssehub.integrations.gunicorn")
#: Kinds of workers, each without the hooks and with them.
every_worker = pytest.mark.parametrize(
    ("worker", "hook"),
    [(worker, hook) for worker in ("sync", "gthread", "gevent") for hook in ((), HOOK)],
    ids=lambda value: value if isinstance(value, str) else "hooks" if value else "alone",
)


@contextmanager
def served(worker: str, *more: str, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    # Whoever waits for the graceful timeout hangs.
    command = gunicorn(worker, port, "--graceful-timeout", "3600", *more, app=APP)
    with process(*command, **environment) as running:  # type: ignore[arg-type]
        until(lambda: answers(port), "gunicorn to answer")
        yield running, port


def check_ended(streams: list[Stream]) -> None:
    """Read the streams to their ends: in order, and each client told to come back at a moment of its own."""
    times = set()
    for stream in streams:
        assert [event.data for event in stream.rest()] in ([], ["."])  # and the last chunk, or IncompleteRead is raised
        assert stream.response.chunked and 2000 <= (stream.decoder.reconnection_time or 0) <= 4000
        times.add(stream.decoder.reconnection_time)
        stream.close()
    assert len(times) > STREAMS / 2


def opened(port: int, workers: int = 1) -> list[Stream]:
    """Open streams, and wait until all workers are there and have nothing else to do."""
    streams = [Stream(port, "/events") for _ in range(STREAMS)]
    for stream in streams:
        stream.opened()
    answered: set[int] = set()

    def all_have_answered() -> bool:
        answered.add(call(port, "GET", "/stats")[1]["pid"])
        return len(answered) == workers

    until(all_have_answered, "all workers to answer")
    until(lambda: all(map(is_idle, answered)), "all workers to be idle")
    return streams


def is_idle(worker: int) -> bool:
    """Return whether a worker's main thread waits for connections.

    A signal that comes while gunicorn's gthread worker hands a request to its pool can find the pool locked, and
    gunicorn's handler then waits for that lock for ever.
    """
    is_asleep = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    where = Path(f"/proc/{worker}/wchan").read_text()
    return is_asleep and ("poll" in where or "select" in where or where == "0")  # the last where the kernel hides it


@pytest.mark.parametrize(
    ("more", "workers"), [((), 1), (("--preload",), 1), (("-w", "4"), 4)], ids=["", "preload", "4"]
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@every_worker
def test_told_to_stop_it_ends_all_streams_and_goes(
    worker: str, hook: tuple[str, ...], number: int, more: tuple[str, ...], workers: int
) -> None:
    if worker == "gthread" and number == signal.SIGINT:
        pytest.skip("gunicorn's gthread worker can wait for ever for a lock of its own when SIGINT comes")
    with served(worker, *hook, *more) as (running, port):
        streams = opened(port, workers)
        running.send_signal(number)
        check_ended(streams)
        assert running.wait(2 * GUARD) == 0


@every_worker
def test_clients_that_keep_their_connections_open_do_not_hold_it_up(worker: str, hook: tuple[str, ...]) -> None:
    with served(worker, *hook, "--keep-alive", "3600") as (running, port):
        streams = opened(port)
        running.terminate()
        assert running.wait(2 * GUARD) == 0
        check_ended(streams)


@pytest.mark.parametrize("workers", [1, 4])
@every_worker
def test_told_to_reload_it_ends_the_old_workers_streams_and_a_new_one_takes_over(
    worker: str, hook: tuple[str, ...], workers: int
) -> None:
    with served(worker, *hook, "-w", str(workers)) as (running, port):
        streams, before = opened(port, workers), children(running)
        running.send_signal(signal.SIGHUP)
        check_ended(streams)
        until(lambda: not before & children(running))  # until then it may still be an old one that answers
        again = opened(port, workers)
        if workers == 1:
            call(port, "POST", "/send?data=hello")
            for stream in again:
                assert stream.message().data == "hello"


@every_worker
def test_a_worker_that_has_served_enough_requests_ends_its_streams_and_goes(worker: str, hook: tuple[str, ...]) -> None:
    with served(worker, *hook, "--max-requests", str(STREAMS + 5)) as (_, port):
        streams = opened(port)
        for _ in range(5):
            answers(port)
        check_ended(streams)
        until(lambda: answers(port), guard=2 * GUARD)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@every_worker
def test_a_request_that_is_still_served_when_it_is_told_to_stop_can_send(
    worker: str, hook: tuple[str, ...], number: int
) -> None:
    control = free_port()  # of an address at which the busy worker answers
    with served(worker, *hook, CONTROL=str(control)) as (running, port):
        streams, results = opened(port), []
        sender = threading.Thread(target=lambda: results.append(call(port, "POST", "/send?data=late&after=1")))
        sender.start()
        until(lambda: call(control, "GET", "/stats")[1]["sending"], "the request to be served")
        running.send_signal(number)
        if worker == "sync" and not hook:  # its streams end when the worker does
            for stream in streams:
                assert stream.message().data == "late"
        check_ended(streams)
        sender.join()
        assert results == [(200, b"sent")]


LIMITED = """
import os
from ssehub import Hub
limit, detach = (eval(os.environ[name]) for name in ("LIMIT", "DETACH"))
hub = Hub(max_connections=limit, detach=detach)
def app(environ, start_response):
    return hub.connect(environ)(environ, start_response)
"""


@pytest.mark.parametrize("hook", [(), HOOK], ids=["alone", "hooks"])
@pytest.mark.parametrize(
    ("worker", "limit", "detach", "warned"),
    [
        ("gthread", "None", "None", "one of gunicorn's 6 threads"),
        ("gthread", "6", "False", "one of gunicorn's 6 threads"),
        ("gthread", "5", "None", ""),
        ("gthread", "None", "True", ""),
        ("gevent", "2000", "None", "one of gunicorn's 106 worker_connections"),
        ("sync", "None", "None", ""),
    ],
)
def test_streams_that_may_take_all_threads_are_warned_of(
    worker: str, limit: str, detach: str, warned: str, hook: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "limited.py").write_text(LIMITED)
    port, log = free_port(), tmp_path / "log"
    command = gunicorn(worker, port, "--chdir", str(tmp_path), *hook, threads=6, app="limited:app")
    with process(*command, log=log, LIMIT=limit, DETACH=detach):
        until(lambda: opened_stream(port)).close()
    assert log.read_text().count("when streams use all of them") == bool(warned)
    assert warned in log.read_text()


HIDING = """
import signal
from ssehub import Hub
signal.signal(signal.SIGTERM, lambda number, frame: None)
hub = Hub()
def app(environ, start_response):
    return hub.connect(environ)(environ, start_response)
"""


@pytest.mark.parametrize("hook", [(), HOOK], ids=["alone", "hooks"])
def test_an_application_that_hides_the_worker_is_warned_unless_the_hooks_name_it(
    hook: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "hiding.py").write_text(HIDING)
    port, log = free_port(), tmp_path / "log"
    with process(*gunicorn("gthread", port, "--chdir", str(tmp_path), *hook, app="hiding:app"), log=log):
        for _ in range(2):
            until(lambda: opened_stream(port)).close()
    assert log.read_text().count("the application handles SIGTERM itself") == (not hook)


def opened_stream(port: int) -> Stream | None:
    """Open a stream; None if the server does not listen yet."""
    try:
        stream = Stream(port, "/")
    except ConnectionError:
        return None
    stream.opened()
    return stream


@pytest.mark.parametrize(
    ("environ", "make_log", "warning"),
    [
        ({"gunicorn.socket": None, "wsgi.multithread": False}, MemoryLog, ""),
        ({"gunicorn.socket": None, "wsgi.multithread": True}, MemoryLog, ""),
        ({"wsgi.multithread": False}, MemoryLog, ""),
        ({"wsgi.multiprocess": True}, MemoryLog, "several processes"),
        ({"wsgi.multiprocess": True}, lambda: RedisLog("redis://"), ""),
    ],
)
def test_what_will_not_do_is_said_once(
    make_hub: Callable[..., Hub],
    caplog: pytest.LogCaptureFixture,
    environ: dict[str, Any],
    make_log: Callable[[], Any],
    warning: str,
) -> None:
    warnings._warn.cache_clear()
    hub = make_hub(make_log())
    for _ in range(2):
        hub.connect(dict(environ))
    assert [warning in record.message for record in caplog.records] == [True] * bool(warning)


SERVER = """
import sys
from ssehub.integrations.signals import close_on_signals
from tests.apps.run import main
close_on_signals()
main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_another_server_ends_its_streams_on_a_signal_too(number: int) -> None:
    port = free_port()
    with process(sys.executable, "-c", SERVER, "werkzeug", str(port), APP) as running:
        until(lambda: answers(port))
        streams = opened(port)
        running.send_signal(number)
        check_ended(streams)
        assert running.wait(GUARD) in (0, 128 + number)


def test_signals_are_only_taken_over_in_the_main_thread() -> None:
    from ssehub.integrations.signals import close_on_signals

    raised: list[ValueError] = []

    def call_it() -> None:
        try:
            close_on_signals()
        except ValueError as error:
            raised.append(error)

    thread = threading.Thread(target=call_it)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])
