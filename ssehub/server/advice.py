"""Advice: what a server shows that will not do, said once."""

from __future__ import annotations

import functools
import logging
from typing import Any

logger = logging.getLogger("ssehub")


def warn_of(environ: dict[str, Any], is_shared: bool) -> None:
    """Warn, once in a process, of a server that cannot serve streams as it is set up.

    :param environ: of a request for a stream.
    :param is_shared: whether the hub's log is one for several processes.
    """
    # "wsgi.multithread" alone proves nothing: wsgiref, pywsgi and uWSGI say False and serve many at once.
    if "gunicorn.socket" in environ and not environ.get("wsgi.multithread"):
        _say(
            "gunicorn runs with its sync worker, which serves one request at a time: one stream takes the whole worker."
            " Use -k gthread --threads N, or -k gevent"
        )
    if environ.get("wsgi.multiprocess") and not is_shared:
        _say(
            "the server runs several processes, and the hub's log is in the memory of one: clients only get what is"
            " sent in the process that they are connected to. Use one process, or Hub(RedisLog(...))"
        )


@functools.cache
def _say(text: str) -> None:
    logger.warning(text)
