"""The time from ``Client.stop`` to the end of the client's thread: ``python -m benchmarks.stopping``."""

from __future__ import annotations

import argparse
import os
import statistics
import time

from benchmarks.table import table
from ssehub import Client
from tests.phases import PHASES, in_phase
from tests.scripted import CERTIFICATE, Server
from tests.streams import until


def stop_once(phase: str, tls: bool) -> float:
    """Bring a client into a phase, stop it from this thread, and return the seconds until its thread has ended."""
    server = Server(PHASES.get(phase, lambda exchange: None), tls=tls, handshake=phase != "handshake")
    client = Client(f"{server.url}/", timeout=(3600, 3600, 3600))
    is_there = in_phase(phase, server, client)
    client.start()
    until(is_there)
    time.sleep(0.02)  # until it is blocked
    began = time.perf_counter()
    if not client.stop(5):
        raise AssertionError(f"not stopped within 5 s: {phase}")
    taken = time.perf_counter() - began
    server.close()
    return taken


def main() -> None:
    """Run the measurement and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    os.environ["REQUESTS_CA_BUNDLE"] = str(CERTIFICATE)
    rows = []
    for phase in (*PHASES, "handshake"):
        row = [phase]
        for tls in (False, True):
            if phase == "handshake" and not tls:
                row.append("")
                continue
            taken = [stop_once(phase, tls) * 1000 for _ in range(rounds)]
            row.append(f"{statistics.median(taken):.1f} ({max(taken):.1f})")
        rows.append(row)
    print(table([["phase", "HTTP: ms, median (longest)", "TLS: ms, median (longest)"], *rows]))


if __name__ == "__main__":
    main()
