"""Server: a program under measurement, in processes of its own on a core of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.processes import Cores, family, on_core, processor_seconds, resident_kib

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Launch:
    """The commands that start a server."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Publishes to the server from outside, and receives the load's requests in its place. It is not measured.
    helper: Sequence[str] = ()


class Server:
    """Runs a server as a context manager.

    :param port: the port of its streams.
    :param control: the port of its loads.

    :raises RuntimeError: with the output of the server, if it does not start.
    """

    def __init__(self, launch: Launch, port: int, control: int, cores: Cores) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._control = control
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        with on_core(cores.server):
            self._process = self._run(launch.command, launch.environment)
        self._started = [self._process]
        if launch.helper:
            with on_core(cores.others):
                self._started.append(self._run(launch.helper, {}))

    def _run(self, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=self._log, stderr=self._log)

    def ask(self, method: str, path: str, timeout: float) -> dict[str, Any]:
        """Return the JSON of the response to a request for a load.

        :raises OSError: if there is no answer in time.
        """
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._control, timeout=timeout)) as connection:
            connection.request(method, path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer

    def processor_seconds(self) -> float:
        """Return the total processor time of its processes in seconds."""
        return processor_seconds(self._process.pid)

    def resident_kib(self) -> float:
        """Return the resident memory of its processes in KiB."""
        return resident_kib(self._process.pid)

    def close(self) -> None:
        """End the server. If necessary, kill it."""
        for process in reversed(self._started):
            ids = family(process.pid) if process.poll() is None else []
            process.terminate()
            try:
                process.wait(15.0)
            except subprocess.TimeoutExpired:
                for pid in ids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()
        self._log.close()

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while all(process.poll() is None for process in self._started) and time.monotonic() < deadline:
            try:
                self.ask("GET", "/ready", 1.0)
                return
            except OSError:
                time.sleep(0.05)
        self._log.seek(0)
        raise RuntimeError("the server did not start: " + self._log.read().decode(errors="replace"))

    def __enter__(self) -> Server:
        try:
            self._wait(20.0)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def gunicorn(application: str, port: int, *options: str) -> list[str]:
    """Return the command of a gunicorn with one worker."""
    command = [sys.executable, "-m", "gunicorn", "-w", "1", "--bind", f"127.0.0.1:{port}", *options]
    # The naive application blocks the worker's own heartbeat, and its threads are still blocked at the end.
    command += ["--timeout", "300", "--graceful-timeout", "1", "--log-level", "warning", "--no-control-socket"]
    return [*command, application]


def threads(streams: int) -> tuple[str, ...]:
    """Return gunicorn's options for a worker with one thread per stream."""
    return ("-k", "gthread", "--threads", str(streams + 20), "--worker-connections", str(streams + 100))


def greenlets(streams: int) -> tuple[str, ...]:
    """Return gunicorn's options for a worker with one greenlet per stream."""
    return ("-k", "gevent", "--worker-connections", str(streams + 100))
