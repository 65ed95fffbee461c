"""How the number of connected clients affects a message to one of them, and the start of a stream.

``python -m benchmarks.index [--clients N ...] [--rounds N]`` from the root of the repository. The streams are bodies of
``Hub.stream()`` in one thread, without HTTP. If the log's index works, the values in each column are about the same for
any number of clients.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import time
from collections.abc import Iterator
from statistics import mean, median
from typing import NamedTuple

from benchmarks.table import table
from ssehub import Hub, MemoryLog

CLIENTS = (100, 1000, 10_000)
#: Number of messages in the log for the client that connects, and for all other clients.
OWN, OTHERS = 10, 10_000
MESSAGES = 2000
ATTACHES = 20
#: The id of the client that connects.
COMING = "coming"


class Cost(NamedTuple):
    """Microseconds."""

    send: float  # of hub.send alone
    read: float  # until the client's stream has yielded the message
    attach: float  # until a client that connects has read its own messages


@contextlib.contextmanager
def connected(clients: int) -> Iterator[tuple[Hub, list[Iterator[bytes]]]]:
    """Yield a hub with this number of streams. The ids of the clients are the numbers from 0."""
    hub = Hub(MemoryLog(2 * (OWN + OTHERS) + MESSAGES))
    bodies = [hub.stream(client_id=str(number)) for number in range(clients)]
    try:
        for body in bodies:
            next(body)
        yield hub, bodies
    finally:
        for body in bodies:
            body.close()  # type: ignore[attr-defined]
        hub.close()


def measure(clients: int) -> Cost:
    """Measure with this number of clients."""
    choose = random.Random(1).randrange
    with connected(clients) as (hub, bodies):
        sends, reads = [], []
        for number in range(MESSAGES):
            client = choose(clients)
            began = time.perf_counter()
            hub.send(str(client), f"<{number}>")
            sent = time.perf_counter()
            read_until(bodies[client], f"<{number}>")
            sends.append(sent - began)
            reads.append(time.perf_counter() - sent)
        fill(hub, clients)
        attach = median(come(hub) for _ in range(ATTACHES))
    return Cost(mean(sends) * 1e6, mean(reads) * 1e6, attach * 1e6)


def fill(hub: Hub, clients: int) -> None:
    """Add the messages of one client to the log, evenly distributed among those of the others."""
    choose = random.Random(2).randrange
    for number in range(OWN):
        hub.send(COMING, f"<own {number}>")
        for _ in range(OTHERS // OWN):
            hub.send(str(choose(clients)), "other")


def come(hub: Hub) -> float:
    """Return the seconds until a client that connects has read its own messages."""
    began = time.perf_counter()
    body = hub.stream(client_id=COMING, since=OWN)
    read_until(body, f"<own {OWN - 1}>")
    taken = time.perf_counter() - began
    body.close()  # type: ignore[attr-defined]
    return taken


def read_until(body: Iterator[bytes], text: str) -> None:
    """Read a stream until a text."""
    wanted = text.encode()
    while wanted not in next(body):
        pass


def main() -> None:
    """Run the measurement and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[int, list[Cost]] = {clients: [] for clients in options.clients}
    for _ in range(options.rounds):
        for clients, costs in found.items():
            costs.append(measure(clients))
    rows = [["clients", "us to send", "us to read", "us to attach"]]
    for clients, costs in found.items():
        rows.append([f"{clients:,}", *(f"{median(column):,.1f}" for column in zip(*costs, strict=True))])
    print(table(rows))


if __name__ == "__main__":
    main()
