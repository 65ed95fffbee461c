"""Workers: several processes that serve on one listening socket. A process that dies is replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable

from ssehub.backoff import Backoff
from ssehub.cli.terminal import say

#: Seconds that the workers have to end after they were told to. Then they are killed.
_END = 15.0
#: A worker that ends within this time has failed to start, in seconds.
_START = 2.0
#: The wait before a worker is replaced that has failed to start.
_BACKOFF = Backoff(initial=0.5, maximum=30.0)


class Workers:
    """Runs a function in several child processes. Use it in the main thread, before any thread is started.

    :param count: the number of processes.
    :param work: the function. It ends when its process gets SIGTERM. It returns the exit code.
    """

    def __init__(self, count: int, work: Callable[[], int]) -> None:
        self._count = count
        self._work = work
        #: When each worker was started (``time.monotonic()``), by process id.
        self._started: dict[int, float] = {}
        self._failures = 0
        #: Only this process has the write end. So its children read an end of file when it has died.
        self._pipe = os.pipe()

    def run(self) -> None:
        """Start the workers, and replace those that die, until this process is interrupted. Then end them."""
        try:
            while True:
                while len(self._started) < self._count:
                    self._start()
                self._replace(*os.waitpid(-1, 0))
        except KeyboardInterrupt:
            pass
        finally:
            self._end()

    def _start(self) -> None:
        pid = os.fork()
        if pid == 0:
            self._run_child()
        self._started[pid] = time.monotonic()

    def _run_child(self) -> None:
        """Run the function, and exit. Never returns."""
        code = 1
        try:
            os.close(self._pipe[1])
            threading.Thread(target=self._watch_parent, name="ssehub-parent", daemon=True).start()
            code = self._work()
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _watch_parent(self) -> None:
        os.read(self._pipe[0], 1)
        os.kill(os.getpid(), signal.SIGTERM)

    def _replace(self, pid: int, status: int) -> None:
        started = self._started.pop(pid, None)
        if started is None:
            return
        say(f"ssehub: worker {pid} has ended ({_cause(status)}); another one is started")
        if time.monotonic() - started > _START:
            self._failures = 0
            return
        self._failures += 1
        time.sleep(_BACKOFF.delay(self._failures, 0.0))

    def _end(self) -> None:
        for pid in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _END
        while self._started:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            self._started.pop(pid, None)
            if pid == 0:
                time.sleep(0.02)
                if time.monotonic() > deadline:
                    for left in self._started:
                        os.kill(left, signal.SIGKILL)


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.waitstatus_to_exitcode(status)}"
