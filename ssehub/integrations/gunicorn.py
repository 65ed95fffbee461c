"""gunicorn: hooks for a server configuration. Use ``gunicorn -c python:ssehub.integrations.gunicorn app:app``.

In a configuration file of your own, import them: ``from ssehub.integrations.gunicorn import post_worker_init,
worker_exit, worker_abort``.

Plain ``gunicorn app:app`` works without them: the hub detects when a worker is told to stop
(``ssehub/wsgi/gunicorn_worker.py``), or ends the streams when the process exits. The hooks add three things:

* They raise the limit of open descriptors, and with it the number of streams.
* If streams can use up all threads, they warn at the start instead of at the first stream.
* They end the streams of a worker that gunicorn aborts because it did not respond in time.
"""

from __future__ import annotations

import threading
from typing import Any

from ssehub.wsgi import gunicorn_worker
from ssehub.wsgi.capacity import most_streams
from ssehub.wsgi.hub_core import end_all_streams, hubs
from ssehub.wsgi.sockets import raise_descriptor_limit


def post_worker_init(worker: Any) -> None:
    """Start watching a worker. gunicorn calls this in each worker after it has loaded the application.

    It is called after the fork and after gevent's patching, so it works with ``--preload`` too.

    :param worker: gunicorn's worker.
    """
    raise_descriptor_limit()
    gunicorn_worker.watch(worker, end_all_streams)
    for hub in hubs():
        if hub.settings.detach is False or (hub.settings.detach is None and gunicorn_worker.kind_of(worker) != "sync"):
            gunicorn_worker.check_threads(worker, most_streams(hub.settings, 2))


def worker_exit(server: Any, worker: Any) -> None:
    """End the streams of a worker that exits without waiting for its requests. gunicorn calls this on exit.

    :param server: gunicorn's arbiter.
    :param worker: gunicorn's worker.
    """
    end_all_streams()


def worker_abort(worker: Any) -> None:
    """End the streams of a worker that did not respond in time. gunicorn calls this before it kills the worker.

    :param worker: gunicorn's worker.
    """
    # Not in this signal handler: its thread may hold the locks that end_all_streams() needs.
    thread = threading.Thread(target=end_all_streams, name="ssehub-gunicorn", daemon=True)
    thread.start()
    thread.join(1.0)
