"""The cost of following a stream, compared with other clients in Python: ``python -m benchmarks.client``.

A server in a process of its own sends events of 200 bytes over loopback, each in a chunk of its own. First it sends as
fast as possible, then one event per 10 ms.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import httpx
import httpx_sse
import ld_eventsource
import ld_eventsource.config
import requests
import requests_sse
import sseclient

from benchmarks.table import table
from ssehub import Client

#: Total size of an event in bytes.
SIZE = 200
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def serve() -> None:
    """Answer ``/flood/N`` with N events at once, and ``/pace/N`` with one event per 10 ms; then close."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(65536)
        _, kind, count = request.split(b" ")[1].decode().split("/")
        try:
            connection.sendall(HEAD)
            (_flood if kind == "flood" else _pace)(connection, int(count))
            connection.sendall(b"0\r\n\r\n")
        except OSError:
            pass
        connection.close()


def _chunk() -> bytes:
    text = f"data: {time.perf_counter_ns()} ".ljust(SIZE - 2, "x") + "\n\n"
    return b"%x\r\n%s\r\n" % (len(text), text.encode())


def _flood(connection: socket.socket, count: int) -> None:
    block = _chunk() * 100
    for _ in range(count // 100):
        connection.sendall(block)


def _pace(connection: socket.socket, count: int) -> None:
    for _ in range(count):
        connection.sendall(_chunk())
        time.sleep(0.01)


def ssehub_loop(url: str) -> Iterator[str | None]:
    """Follow with ssehub, in a loop."""
    return (message.data for message in Client(url))


def launchdarkly(url: str) -> Iterator[str]:
    """Follow with launchdarkly-eventsource."""
    strategy = ld_eventsource.config.ConnectStrategy.http(url)
    return (event.data for event in ld_eventsource.SSEClient(strategy).events)


def httpx_sse_(url: str) -> Iterator[str]:
    """Follow with httpx-sse."""
    with httpx.Client() as client, httpx_sse.connect_sse(client, "GET", url) as source:
        for event in source.iter_sse():
            yield event.data


def sseclient_py(url: str) -> Iterator[str]:
    """Follow with sseclient-py over requests, as its README does."""
    response: Any = requests.get(url, stream=True)
    return (event.data for event in sseclient.SSEClient(response).events())


def requests_sse_(url: str) -> Iterator[str | None]:
    """Follow with requests-sse."""
    with requests_sse.EventSource(url) as source:
        for event in source:
            yield event.data


CONTESTANTS: dict[str, Callable[[str], Iterator[Any]]] = {
    "ssehub": ssehub_loop,
    "launchdarkly": launchdarkly,
    "httpx-sse": httpx_sse_,
    "sseclient-py": sseclient_py,
    "requests-sse": requests_sse_,
}


def flood(follow: Callable[[str], Iterator[Any]], port: int, count: int) -> tuple[float, float]:
    """Return the events per second from the first to the last, and the processor time for each in microseconds."""
    events = follow(f"http://127.0.0.1:{port}/flood/{count}")
    next(events)
    began, processor = time.perf_counter(), time.process_time()
    taken = sum(1 for _ in islice(events, count - 1))
    if taken != count - 1:
        raise AssertionError(f"{taken + 1} events of {count}")
    return taken / (time.perf_counter() - began), (time.process_time() - processor) / taken * 1e6


def pace(follow: Callable[[str], Iterator[Any]], port: int, count: int) -> tuple[float, float]:
    """Return the median and the 99th percentile of the microseconds from sending an event to its arrival."""
    late = []
    for data in islice(follow(f"http://127.0.0.1:{port}/pace/{count}"), count):
        late.append((time.perf_counter_ns() - int(data.split()[0])) / 1000)
    return statistics.median(late), statistics.quantiles(late, n=100)[98]


def main() -> None:
    """Run the measurement and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=20_000, help="of the flood")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
    server = subprocess.Popen([sys.executable, "-m", __spec__.name, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        floods: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTESTANTS}
        paces: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTESTANTS}
        for _ in range(options.rounds):
            for name, follow in CONTESTANTS.items():
                floods[name].append(flood(follow, port, options.events))
                paces[name].append(pace(follow, port, 200))
    finally:
        server.kill()
        server.wait()
    rows = []
    for name in CONTESTANTS:
        rate, processor = (statistics.median(column) for column in zip(*floods[name], strict=True))
        p50, p99 = (statistics.median(column) for column in zip(*paces[name], strict=True))
        rows.append([name, f"{rate:,.0f}", f"{processor:.1f}", f"{p50:,.0f}", f"{p99:,.0f}"])
    print(table([["client", "events/s", "processor us each", "p50 us", "p99 us"], *rows]))


if __name__ == "__main__":
    main()
