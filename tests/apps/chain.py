"""Processes that share a log, for tests of its order.

``python -m tests.apps.chain follow URL`` prints the data of each entry up to ``end``, and any fault in their chain.
``python -m tests.apps.chain send URL SEED COUNT`` sends numbered messages, and prints what was accepted.
``python -m tests.apps.chain within URL SEED COUNT`` sends messages in transactions, of which a third is rolled back. It
also inserts each message into the table ``orders``, and prints what was committed.

The environment variable ``SIZE`` has the size of the log.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import threading
from collections.abc import Sequence

from ssehub import Hub, Log, LogError
from ssehub.log import Entry, Position
from ssehub.log.packet import Command
from ssehub.log.urls import open_log


def _log(url: str) -> Log:
    return open_log(url, size=int(os.environ.get("SIZE", "1000000")))


def follow(url: str) -> None:
    """Print the data of each entry up to ``end``."""
    log, done = _log(url), threading.Event()
    last: list[Position] = []

    def begin(place: Position, commands: Sequence[Command]) -> None:
        print("fault: broken" if last else "follows", flush=True)
        last[:] = [place]

    def deliver(entry: Entry) -> int:
        (before,) = last
        if (entry.previous, entry.position.offset) != (before.nonce, before.offset + 1):
            print(f"fault: {entry.position} after {before}")
        last[:] = [entry.position]
        print(entry.packet.message.data, flush=True)
        if entry.packet.message.data == "end":
            done.set()
        return 0

    log.start(deliver, begin)
    done.wait()
    log.close()


def send(url: str, seed: int, count: int) -> None:
    """Send numbered messages, and print what was accepted."""
    hub = Hub(_log(url))
    for n in range(count):
        try:
            hub.broadcast(f"{seed}-{n}")
        except LogError as error:
            print(f"refused {seed}-{n}: {error}", flush=True)
        else:
            print(f"{seed}-{n}", flush=True)
    hub.close()


def within(url: str, seed: int, count: int) -> None:
    """Send numbered messages in transactions of random length."""
    hub, chance = Hub(_log(url)), random.Random(seed)
    connection = sqlite3.connect(url.partition(":")[2], isolation_level=None, timeout=60)
    connection.execute("PRAGMA synchronous = OFF")
    sent = 0
    while sent < count:
        texts = [f"{seed}-{n}" for n in range(sent, min(count, sent + chance.randint(1, 9)))]
        sent += len(texts)
        connection.execute("BEGIN IMMEDIATE")
        for text in texts:
            hub.broadcast(text, within=connection)
            connection.execute("INSERT INTO orders (data) VALUES (?)", (text,))
        if chance.random() < 1 / 3:
            connection.execute("ROLLBACK")
        else:
            connection.execute("COMMIT")
            print(*texts, sep="\n", flush=True)
    connection.close()
    hub.close()


if __name__ == "__main__":
    {"follow": follow, "send": send, "within": within}[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))
