"""A hub whose log is a file: it survives the hub's process, and another process writes it.

``python -m tests.apps.survivor FILE`` is that process: it appends numbered messages until it is ended.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ssehub import Hub, LogError, MemoryLog, Message, Packet, Receipt
from ssehub.log.history import History
from ssehub.log.packet import Command, Entry
from ssehub.log.position import GENESIS, Position, new_nonce
from ssehub.service import create_app


class FileLog(MemoryLog):
    """Follow the lines of a file, each of which is an entry: its nonce and its data."""

    def __init__(self, path: str) -> None:
        super().__init__(size=1_000_000)
        self._path = path

    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Command]], None]) -> None:
        """Take in what is there, and begin to follow."""
        super().start(deliver, broken)
        self._own = History(1_000_000, None, Position(1, 0, GENESIS))
        self._delivered = self._own.end
        lines = self._lines()
        for line in lines:
            if line is None:
                break
            self._take(line)
            self._delivered = self.history.end
        threading.Thread(target=self._follow, args=(lines,), daemon=True).start()

    def append(self, packet: Packet) -> Receipt:
        """Refuse: another process writes."""
        raise LogError("this log is written elsewhere")

    def _follow(self, lines: Iterator[str | None]) -> None:
        for line in lines:
            if line is None:
                time.sleep(0.002)
                continue
            with self._lock:
                if self._deliver is None:
                    return
                self._deliver(self._take(line))
                self._delivered = self.history.end

    def _take(self, line: str) -> Entry:
        nonce, data = json.loads(line)
        packet = Packet(Message(data), broadcast=True)
        position = Position(1, self.history.end.offset + 1, nonce)
        entry = Entry(packet, position, self.history.end.nonce, packet.encode())
        self.history.keep(entry)
        return entry

    def _lines(self) -> Iterator[str | None]:
        """Yield each whole line, and None where there is no more yet."""
        with open(self._path) as file:
            rest = ""
            while True:
                rest += file.readline()
                if rest.endswith("\n"):
                    yield rest
                    rest = ""
                else:
                    yield None


def publish(path: str) -> None:
    """Append numbered messages, some five hundred a second."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    n = 0
    while True:
        os.write(file, (json.dumps([new_nonce(), str(n)]) + "\n").encode())
        n += 1
        time.sleep(0.002)


if __name__ == "__main__":
    publish(sys.argv[1])
else:
    app: Any = create_app(Hub(FileLog(os.environ["LOG_FILE"]), retry=20), public=False)
