"""gunicorn's worker: ends the streams when the worker is told to stop, and reports the number of its threads.

gunicorn tells an application that it stops only after its requests have ended. A stream that stays on a thread or a
greenlet is a request that does not end. The worker would wait for the whole ``graceful_timeout``, 30 s, and then be
killed with all its streams. gunicorn has no hook that is called before the requests have ended in all of these cases:
SIGTERM, SIGINT, SIGQUIT, SIGHUP, ``--max-requests`` and ``--reload``. But all of them clear ``worker.alive``, so a
thread of the hub polls this attribute.

A request does not expose the worker that serves it. But the handler of SIGTERM is a method of the worker.
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

#: Seconds between two polls of ``worker.alive``.
_LOOK = 0.1
#: The value of gunicorn's ``-k`` for each worker class.
_KINDS = {"SyncWorker": "sync", "ThreadWorker": "gthread", "GeventWorker": "gevent"}
#: The setting that limits the number of concurrent requests, for each kind of worker.
_LIMITS = {"gthread": "threads", "gevent": "worker_connections"}


#: The watched worker of each process: this one, and the parent processes that it was forked from.
_watched: dict[int, Any] = {}
#: Processes that have warned of their threads.
_warned: set[int] = set()
_lock = threading.Lock()


def find() -> Any:
    """Return gunicorn's worker in this process, or None if the process is not a worker of gunicorn."""
    if (worker := _watched.get(os.getpid())) is not None:
        return worker
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    classes = [f"{one.__module__}.{one.__name__}" for one in type(worker).__mro__]
    return worker if "gunicorn.workers.base.Worker" in classes else None


def kind_of(worker: Any) -> str:
    """Return the value of gunicorn's ``-k`` for a worker's class."""
    name = type(worker).__name__
    return _KINDS.get(name, name)


def requests_at_once(worker: Any) -> int | None:
    """Return the number of requests that a worker serves concurrently, or None if it is not known."""
    kind, settings = kind_of(worker), worker.cfg
    known = {
        "sync": 1,
        "gthread": min(settings.threads, settings.worker_connections),
        "gevent": settings.worker_connections,
    }
    return known.get(kind)


def watch(worker: Any, end_streams: Callable[[], object]) -> None:
    """Start watching a worker, once per process: the streams are ended as soon as it is told to stop.

    :param end_streams: ends the streams.
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
    del _watched[process]  # no thread can be started now: the next stream tries again


def facts() -> dict[str, Any]:
    """Return the facts about the worker that ``ssehub doctor`` reads, as JSON values. Empty without a worker."""
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
    """Warn, once per process, if streams that stay on threads can use up all threads of the worker.

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
        "each stream stays on one of gunicorn's %d %s, and when streams use all of them, other requests wait."
        " Use Hub(detach=True), so that streams use none%s",
        threads,
        setting,
        less,
    )
