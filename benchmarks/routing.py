"""The number of entries that processes of a large hub read: ``python -m benchmarks.routing``. A simulation.

A thousand processes serve a million connections, each in one zone. Clients reach a process at random, or by their zone
(a load balancer that hashes the zone), or by the partition of their zone (one that hashes the partition). The table
shows how many partitions a process has to follow, how many entries it reads, and how many of these its clients need.
"""

from __future__ import annotations

import argparse
import random
import zlib
from collections.abc import Iterator

from benchmarks.table import table
from ssehub import RedisLog

PROCESSES, CONNECTIONS = 1000, 1000
#: Messages per second in the whole hub, each to one zone.
MESSAGES = 50_000


def simulate(zones: int, partitions: int, how: str, seed: int = 1) -> tuple[float, float, float]:
    """Assign all connections to processes.

    :returns: means per process: partitions that it follows, entries that it reads per second, entries that it needs.
    """
    chance = random.Random(seed)
    log = RedisLog("redis://", partitions=partitions)
    partition_of = [log.partitions((f"zone {n}",))[0] for n in range(zones)]
    size = [0] * partitions
    for partition in partition_of:
        size[partition] += 1
    here: list[set[int]] = [set() for _ in range(PROCESSES)]
    for _ in range(PROCESSES * CONNECTIONS):
        zone = chance.randrange(zones)
        here[_process(how, zone, partition_of[zone], partitions, chance)].add(zone)
    followed = [{partition_of[zone] for zone in mine} for mine in here]
    rate = MESSAGES / zones
    return (
        sum(map(len, followed)) / PROCESSES,
        rate * sum(size[partition] for partitions in followed for partition in partitions) / PROCESSES,
        rate * sum(map(len, here)) / PROCESSES,
    )


def _process(how: str, zone: int, partition: int, partitions: int, chance: random.Random) -> int:
    if how == "by zone":
        return zlib.crc32(f"balancer {zone}".encode()) % PROCESSES
    if how == "by partition":  # each partition has several processes, or each process several partitions
        share = max(1, PROCESSES // partitions)
        return (partition * share + chance.randrange(share)) % PROCESSES
    return chance.randrange(PROCESSES)


def rows() -> Iterator[list[str]]:
    """Yield the table, row by row."""
    yield ["zones", "clients come", "partitions", "followed", "entries/s read", "of them needed"]
    for how in ("at random", "by zone", "by partition"):
        for partitions in (1, 16, 128, 1024):
            zones = 100_000
            followed, read, needed = simulate(zones, partitions, how)
            yield [f"{zones:,}", how, f"{partitions:,}", f"{followed:,.1f}", f"{read:,.0f}", f"{needed:,.0f}"]


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(f"{PROCESSES:,} processes, {PROCESSES * CONNECTIONS:,} connections, {MESSAGES:,} messages/s\n")
    print(table(list(rows())))


if __name__ == "__main__":
    main()
