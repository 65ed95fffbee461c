"""Children: functions of a benchmark in processes of their own, controlled over standard input and output."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers import ROOT

#: A process with pipes for its input and output.
Child = subprocess.Popen[str]


@contextmanager
def python(module: str, *arguments: object) -> Iterator[Child]:
    """Run a module in a process, which is killed at the end."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: Child) -> str:
    """Read a line of a process's output."""
    assert process.stdout is not None
    return process.stdout.readline()


def go(process: Child) -> None:
    """Write an empty line to a process's input."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
