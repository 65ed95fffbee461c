"""gunicorn: the hooks of a server configuration. ``gunicorn -c python:ssehub.integrations.gunicorn app:app``.

Or in a configuration of your own: ``from ssehub.integrations.gunicorn import post_worker_init, worker_exit,
worker_abort``.

Plain ``gunicorn app:app`` works without this: the hub finds out by itself when a worker is told to stop
(``ssehub/wsgi/gunicorn_worker.py``), or ends the streams when the process exits. The hooks add three things. They raise
the limit of descriptors, which is the limit of streams. They warn at the start, and not at the first stream, if streams
can take all threads. And they end the streams of a worker that gunicorn aborts because it did not answer in time.
"""

from __future__ import annotations

import threading
from typing import Any

from ssehub.wsgi import gunicorn_worker
from ssehub.wsgi.hub_core import end_all_streams, hubs
from ssehub.wsgi.sockets import raise_descriptor_limit
from ssehub.wsgi.streams import most_streams


def post_worker_init(worker: Any) -> None:
    """Watch a worker from now on: gunicorn calls this in each once the application is loaded.

    It runs after the fork, and after gevent has patched, so that it works with ``--preload`` too.

    :param worker: gunicorn's worker.
    """
    raise_descriptor_limit()
    gunicorn_worker.watch(worker, end_all_streams)
    for hub in hubs():
        if hub.settings.detach is False or (hub.settings.detach is None and gunicorn_worker.kind_of(worker) != "sync"):
            gunicorn_worker.check_threads(worker, most_streams(hub.settings, 2))


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
