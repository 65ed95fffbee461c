"""gunicorn: end the streams when a worker is told to stop. ``gunicorn -c python:ssehub.integrations.gunicorn app:app``.

Or in a configuration of one's own: ``from ssehub.integrations.gunicorn import post_worker_init``.

gunicorn tells an application only that it stops when its requests have ended, and an open stream is a request that does
not: a worker waits for the whole ``graceful_timeout``, 30 s, and cuts all streams in one instant. With this they end
in order within a tenth of a second, each client is told to come back at a moment of its own, and the worker goes.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from ssehub.wsgi.hub import close_all, hubs
from ssehub.wsgi.server_info import note

logger = logging.getLogger("ssehub")

#: Seconds between two looks at whether the worker is to stop. There is no hook that is called for each of SIGTERM,
#: SIGINT, SIGQUIT, SIGHUP, ``--max-requests`` and ``--reload``; what they all do is to clear ``worker.alive``.
_LOOK = 0.1
#: What the classes of workers are called in ``-k``.
_KINDS = {"SyncWorker": "sync", "ThreadWorker": "gthread", "GeventWorker": "gevent"}


def post_worker_init(worker: Any) -> None:
    """Watch a worker from now on: gunicorn calls this in each once the application is loaded.

    It runs after the fork, and after gevent has patched, so that it works with ``--preload`` too.

    :param worker: gunicorn's worker.
    """
    _note_facts(worker)
    _check_threads(worker)
    threading.Thread(target=_watch, args=(worker,), name="ssehub-gunicorn", daemon=True).start()


def _watch(worker: Any) -> None:
    while worker.alive:
        time.sleep(_LOOK)
    close_all()


def _note_facts(worker: Any) -> None:
    """Remember what ``ssehub doctor`` wants to know."""
    kind = _KINDS.get(type(worker).__name__, type(worker).__name__)
    streams = {
        "sync": 1,
        "gthread": min(worker.cfg.threads, worker.cfg.worker_connections),
        "gevent": worker.cfg.worker_connections,
    }.get(kind)
    note(worker=kind, threads=streams, processes=worker.cfg.workers, preload=worker.cfg.preload_app, hook=True)


def _check_threads(worker: Any) -> None:
    """Warn of a hub that may take all threads: then ordinary requests find none."""
    kind = type(worker).__name__
    threads = {"ThreadWorker": worker.cfg.threads, "GeventWorker": worker.cfg.worker_connections}.get(kind)
    for hub in hubs():
        limit = hub.settings.max_connections
        if threads is not None and (limit is None or limit >= threads):
            what = "threads" if kind == "ThreadWorker" else "worker_connections"
            logger.warning(
                "max_connections of the hub is %s, and gunicorn's %s are %d: streams can take all of them, and then"
                " other requests wait; set it ten or twenty below",
                limit,
                what,
                threads,
            )
            return
