"""Threads for tests: end one from outside, or let none be started."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import pytest

from tests.streams import until


def thread_named(name: str) -> threading.Thread:
    """Return the one thread of this name, once there is one."""
    (thread,) = until(lambda: [one for one in threading.enumerate() if one.name == name], name)
    assert isinstance(thread, threading.Thread)
    return thread


def end_from_outside(name: str) -> threading.Thread:
    """Have the thread of this name raise SystemExit, wherever it is, as soon as it runs; return it."""
    thread = thread_named(name)
    assert thread.ident is not None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    return thread


class NoThreads:
    """Let no thread of some names be started, as if the system had no more of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.names = set(names)
        start = threading.Thread.start

        def refuse(thread: threading.Thread, *arguments: Any) -> None:
            if thread.name in self.names:
                raise RuntimeError("can't start new thread")
            start(thread, *arguments)

        monkeypatch.setattr(threading.Thread, "start", refuse)
