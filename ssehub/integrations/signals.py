"""Signals: ends the streams when a server is told to stop. For servers that have no hook for this."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

from ssehub.wsgi.hub_core import end_all_streams

#: Maximum number of seconds in which the streams can end before a signal has its previous effect. They need a few
#: milliseconds, or a second if a client does not read.
_LAST_WORDS = 2.0


def close_on_signals(*numbers: int) -> None:
    """Make signals end the streams of all hubs of this process before they have their previous effect.

    For waitress, werkzeug, wsgiref and cheroot. Call it in the main thread before the server starts. A thread,
    ``ssehub-signals``, waits for the signals. For gunicorn use :mod:`ssehub.integrations.gunicorn`.

    :param numbers: the signals; SIGINT and SIGTERM by default.
    :raises ValueError: if the caller is not the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ValueError("signals can only be handled in the main thread")
    told, done = threading.Event(), threading.Event()
    # Not in the handler, because the main thread may hold the locks that closing needs.
    threading.Thread(target=_close, args=(told, done), name="ssehub-signals", daemon=True).start()
    for number in numbers or (signal.SIGINT, signal.SIGTERM):
        _wrap(number, told, done)


def _close(told: threading.Event, done: threading.Event) -> None:
    told.wait()
    end_all_streams()
    done.set()


def _wrap(number: int, told: threading.Event, done: threading.Event) -> None:
    before: Any = signal.getsignal(number)

    process = os.getpid()

    def _handle(got: int, frame: FrameType | None) -> None:
        if os.getpid() == process:  # a child that was forked later has no thread that ends the streams
            told.set()
            with contextlib.suppress(AssertionError):  # gevent does not allow waiting here
                done.wait(_LAST_WORDS)
        if callable(before):
            before(got, frame)
        elif before != signal.SIG_IGN:
            raise SystemExit(128 + got)

    signal.signal(number, _handle)
