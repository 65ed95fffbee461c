"""Processes: the processes of a server, their resource usage, and the core that they run on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_TICK = os.sysconf("SC_CLK_TCK")


class Cores(NamedTuple):
    """The cores for a benchmark; None for any."""

    server: int | None
    others: int | None

    def __str__(self) -> str:
        if self.server is None:
            return "a single core, so no process is pinned"
        return f"the server on core {self.server}, everything else on core {self.others}"


def two_cores() -> Cores:
    """Choose two of the cores that this process may use. Both are None if there is only one."""
    server, *more = sorted(os.sched_getaffinity(0))
    return Cores(server, more[0]) if more else Cores(None, None)


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Pin processes that this thread starts in this context to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def family(pid: int) -> list[int]:
    """Return the id of a process and the ids of its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


def processor_seconds(pid: int) -> float:
    """Return the total processor time of a process and its descendants in seconds."""
    ticks = 0
    for one in family(pid):
        # The name, in parentheses, may contain any character. Fields 14 and 15 are the user and system time.
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICK


def resident_kib(pid: int) -> float:
    """Return the resident memory of a process and its descendants in KiB. Shared memory is counted for each."""
    return sum(_resident_kib(one) for one in family(pid))


def _resident_kib(pid: int) -> float:
    return float(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0])
