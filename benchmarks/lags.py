"""Lags: how late messages are delivered in the processes of a server, in a folder with a file for each process.

The data of a message is expected to be ``<number> <time.monotonic() of sending>``; this time is comparable across the
processes of a machine.
"""

from __future__ import annotations

import atexit
import os
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

from ssehub.log import Command, Entry, Log, Position

#: The number of messages whose lags are written at once. If the process is killed, the last ones are not written.
_AT_ONCE = 50


class Lags:
    """Writes the lags of this process. Not thread-safe: a log delivers one entry at a time.

    :param folder: the folder for the file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seconds = array("d")
        atexit.register(self.write)

    def add(self, seconds: float) -> None:
        """Note one."""
        self._seconds.append(seconds)
        if len(self._seconds) >= _AT_ONCE:
            self.write()

    def write(self) -> None:
        """Write those that are not written yet."""
        with (self._folder / str(os.getpid())).open("ab", buffering=0) as file:
            file.write(self._seconds.tobytes())
        del self._seconds[:]


def read(folder: Path) -> list[float]:
    """Return what all processes have written, in order of size."""
    found = array("d")
    for file in folder.iterdir():
        found.frombytes(file.read_bytes())
    return sorted(found)


def note(log: Log, lags: Lags) -> Log:
    """Make a log note the lag of each message, after it was delivered. Return the log."""
    start = log.start

    def noting(deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Command]], None]) -> None:
        def deliver_and_note(entry: Entry) -> int:
            queued = deliver(entry)
            data = entry.packet.message.data
            if data:
                lags.add(time.monotonic() - float(data.split(" ", 2)[1]))
            return queued

        start(deliver_and_note, broken)

    log.start = noting  # type: ignore[method-assign]
    return log
