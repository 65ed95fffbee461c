"""gunicorn: end the streams when a worker is told to stop. ``gunicorn -c python:ssehub.integrations.gunicorn app:app``.

Or in a configuration of your own: ``from ssehub.integrations.gunicorn import post_worker_init, worker_exit``.

Streams that have left the server's threads, as all do under the default worker, end well without this: the hub ends
them when the process exits. Streams that stay on a thread or a greenlet (``gthread``, ``gevent``) need it. gunicorn
tells an application only that it stops when its requests have ended, and such a stream is a request that does not end:
a worker waits for the whole ``graceful_timeout``, 30 s, and cuts all streams at the same moment. With this they end
within a tenth of a second, each client is told to come back at a moment of its own, and the worker goes. Requests that
are still served meanwhile can send messages.

It also raises the limit of descriptors, which is the limit of streams.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from ssehub.wsgi.hub import end_all_streams, hubs
from ssehub.wsgi.server_info import note
from ssehub.wsgi.sockets import raise_descriptor_limit

logger = logging.getLogger("ssehub")

#: Seconds between two looks at whether the worker is to stop. There is no hook that is called for each of SIGTERM,
#: SIGINT, SIGQUIT, SIGHUP, ``--max-requests`` and ``--reload`` before the requests have ended; what they all do is to
#: clear ``worker.alive``.
_LOOK = 0.1
#: What the classes of workers are called in ``-k``.
_KINDS = {"SyncWorker": "sync", "ThreadWorker": "gthread", "GeventWorker": "gevent"}


def post_worker_init(worker: Any) -> None:
    """Watch a worker from now on: gunicorn calls this in each once the application is loaded.

    It runs after the fork, and after gevent has patched, so that it works with ``--preload`` too.

    :param worker: gunicorn's worker.
    """
    raise_descriptor_limit()
    _note_facts(worker)
    _check_threads(worker)
    threading.Thread(target=_watch, args=(worker,), name="ssehub-gunicorn", daemon=True).start()


def worker_exit(server: Any, worker: Any) -> None:
    """End the streams of a worker that does not wait for its requests: gunicorn calls this as it goes.

    :param server: gunicorn's arbiter.
    :param worker: gunicorn's worker.
    """
    end_all_streams()


def worker_abort(worker: Any) -> None:
    """End the streams of a worker that is killed because it did not answer in time: gunicorn calls this before.

    :param worker: gunicorn's worker.
    """
    # Not here, in a signal's handler: this thread may hold the very locks that it takes.
    thread = threading.Thread(target=end_all_streams, name="ssehub-gunicorn", daemon=True)
    thread.start()
    thread.join(1.0)


def _watch(worker: Any) -> None:
    while worker.alive:
        time.sleep(_LOOK)
    end_all_streams()


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
    """Warn of a hub whose streams may take all threads: then ordinary requests find no thread."""
    kind = type(worker).__name__
    threads = {"ThreadWorker": worker.cfg.threads, "GeventWorker": worker.cfg.worker_connections}.get(kind)
    for hub in hubs():
        limit = hub.settings.max_connections
        if threads is not None and hub.settings.detach is not True and (limit is None or limit >= threads):
            what = "threads" if kind == "ThreadWorker" else "worker_connections"
            logger.warning(
                "max_connections of the hub is %s, and gunicorn's %s are %d: streams can take all of them, and then"
                " other requests wait. Use Hub(detach=True), so that streams take none, or set max_connections ten or"
                " twenty below",
                limit,
                what,
                threads,
            )
            return
