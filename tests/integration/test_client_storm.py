"""A client against a hub on gunicorn that is killed again and again, while another process publishes."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path

from ssehub import Backoff, Client
from tests.servers import answers, free_port, gunicorn, process
from tests.streams import GUARD, until

KILLS = 20


def test_nothing_is_missed_and_nothing_comes_twice_though_the_hub_is_killed_twenty_times(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    port = free_port()
    command = (*gunicorn("gthread", port)[:-1], "tests.apps.survivor:app")
    received: list[list[int]] = [[] for _ in range(3)]
    gaps: list[object] = []
    opened = threading.Semaphore(0)
    with contextlib.ExitStack() as stack:
        clients = []
        for numbers in received:
            client = Client(f"http://127.0.0.1:{port}/events", backoff=Backoff(0.02, 2, 0.2), reconnect_delay=0.02)
            client.on_event("message", lambda message, numbers=numbers: numbers.append(int(message.data or "")))
            client.on_event("ssehub.open", lambda message: opened.release())
            client.on_gap(lambda *gap: gaps.append(gap))
            clients.append(stack.enter_context(client).start())
        for kill in range(KILLS):
            with process(*command, LOG_FILE=str(log)):
                # All have come back, or for the first time, and have seen something new.
                for _ in clients:
                    assert opened.acquire(timeout=3 * GUARD)
                if kill == 0:
                    stack.enter_context(process(sys.executable, "-m", "tests.apps.survivor", str(log)))
                marks = [len(numbers) for numbers in received]
                more = 10 + 7 * kill
                until(lambda: all(len(now) > mark + more for now, mark in zip(received, marks, strict=True)))  # noqa: B023
        last = len(log.read_text().splitlines())
        with process(*command, LOG_FILE=str(log)):
            until(lambda: all(len(numbers) >= last for numbers in received))
            until(lambda: answers(port))  # the clients may have had everything before it was there
            for client in clients:
                assert client.stop(GUARD)
    assert gaps == []
    for numbers in received:
        assert numbers == list(range(len(numbers))) and len(numbers) >= last
