"""gunicorn's worker: ends the streams when it is told to stop, and knows how many threads it has.

gunicorn tells an application that it stops only when its requests have ended. A stream that stays on a thread, or on a
greenlet, is a request that does not end: the worker would wait for the whole ``graceful_timeout``, 30 s, and then be
killed with all its streams. No hook of gunicorn is called for each of SIGTERM, SIGINT, SIGQUIT, SIGHUP,
``--max-requests`` and ``--reload`` before the requests have ended. What they all do is to clear ``worker.alive``, so a
thread of the hub looks at that.

A request does not show the worker that serves it. But the worker handles SIGTERM, and the handler is its method.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from ssehub.background import Background
from ssehub.logger import logger

#: Seconds between two looks at whether the worker is to stop.
_LOOK = 0.1
#: What the classes of workers are called in ``-k``.
_KINDS = {"SyncWorker": "sync", "ThreadWorker": "gthread", "GeventWorker": "gevent"}
#: The setting that limits the requests that a kind of worker serves at a time.
_LIMITS = {"gthread": "threads", "gevent": "worker_connections"}


#: The worker of this process and of those that it was forked from, by process, once it is watched.
_watched: dict[int, Any] = {}
#: Processes that have warned of their threads.
_warned: set[int] = set()
_lock = threading.Lock()


def find() -> Any:
    """Return the worker that this process is, or None if it is not a worker of gunicorn."""
    if (worker := _watched.get(os.getpid())) is not None:
        return worker
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    classes = [f"{one.__module__}.{one.__name__}" for one in type(worker).__mro__]
    return worker if "gunicorn.workers.base.Worker" in classes else None


def kind_of(worker: Any) -> str:
    """Return what a worker's class is called in gunicorn's ``-k``."""
    name = type(worker).__name__
    return _KINDS.get(name, name)


def requests_at_once(worker: Any) -> int | None:
    """Return how many requests a worker serves at a time; None if that is not known."""
    kind, settings = kind_of(worker), worker.cfg
    known = {
        "sync": 1,
        "gthread": min(settings.threads, settings.worker_connections),
        "gevent": settings.worker_connections,
    }
    return known.get(kind)


def watch(worker: Any, end_streams: Callable[[], object]) -> None:
    """Have the streams ended as soon as a worker is told to stop; once in a process.

    :param end_streams: ends them.
    """
    process = os.getpid()
    with _lock:
        if process in _watched:
            return
        _watched[process] = worker

    def _look() -> None:
        if worker.alive:
            watching.wait(_LOOK)
        else:
            end_streams()
            watching.end()

    trouble = "the streams are not ended when gunicorn stops", "gunicorn's worker is watched again"
    watching = Background("ssehub-gunicorn", _look, trouble)
    with contextlib.suppress(RuntimeError):
        watching.start()
        return
    del _watched[process]  # there can be no more threads now: the next stream tries again


def facts() -> dict[str, Any]:
    """Return what ``ssehub doctor`` wants to know of the worker, as values of JSON; nothing if there is no worker."""
    worker = find()
    if worker is None:
        return {}
    return {
        "worker": kind_of(worker),
        "threads": requests_at_once(worker),
        "processes": worker.cfg.workers,
        "preload": worker.cfg.preload_app,
    }


def check_threads(worker: Any, limit: int) -> None:
    """Warn, once in a process, if streams that stay on threads may take all of them.

    :param limit: the maximum number of streams.
    """
    threads = requests_at_once(worker)
    if threads is None or limit < threads:
        return
    with _lock:
        if os.getpid() in _warned:
            return
        _warned.add(os.getpid())
    setting = _LIMITS.get(kind_of(worker), "threads")
    less = f", or allow fewer streams than that: Hub(max_connections={max(1, threads - 10)})" if threads > 1 else ""
    logger.warning(
        "each stream stays on one of gunicorn's %d %s, and when streams have taken all of them, other requests wait."
        " Use Hub(detach=True), so that streams take none%s",
        threads,
        setting,
        less,
    )
