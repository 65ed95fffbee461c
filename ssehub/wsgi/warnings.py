"""Warnings: what a request shows of a server that is not set up for streams, each logged once."""

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
    if environ.get("wsgi.multiprocess") and not is_shared:
        _warn(
            "the server runs several processes, and the hub's log is in the memory of one: clients only get what is"
            " sent in the process that they are connected to. Use one process, or Hub(RedisLog(...))"
        )


@functools.cache
def _warn(text: str) -> None:
    logger.warning(text)
