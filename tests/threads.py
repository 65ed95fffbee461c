"""Threads for tests: end a thread from outside, or make the start of threads fail."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import pytest

from tests.streams import until


def thread_named(name: str) -> threading.Thread:
    """Wait for a thread with this name, and return it. There must be only one."""
    (thread,) = until(lambda: [one for one in threading.enumerate() if one.name == name], name)
    assert isinstance(thread, threading.Thread)
    return thread


def end_from_outside(name: str) -> threading.Thread:
    """Raise SystemExit in the thread with this name, wherever it is. Return the thread."""
    thread = thread_named(name)
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    return thread


class NoThreads:
    """Makes the start of threads with some names fail, as if the system could start no more threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.names = set(names)
        start = threading.Thread.start

        def refuse(thread: threading.Thread, *arguments: Any) -> None:
            if thread.name in self.names:
                raise RuntimeError("can't start new thread")
            start(thread, *arguments)

        monkeypatch.setattr(threading.Thread, "start", refuse)
