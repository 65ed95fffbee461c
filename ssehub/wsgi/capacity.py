"""Capacity: how many streams a process may have, and how long clients wait when it has no room for more.

By default, file descriptors are the limit. A detached stream uses one. A parked stream uses two, because the server
keeps its own while the hub writes to a copy; a stream on a thread counts as a parked one. A stream without a request
uses none. Some descriptors are reserved for ordinary requests, databases and files, so that these still work in a full
process.
"""

from __future__ import annotations

import sys

from ssehub.server.settings import HubSettings

#: A full hub asks clients to wait this many times ``retry`` (at most twice as long, at random).
REFUSAL = 5
#: Descriptors reserved for other uses: the minimum, and one in this many of those that the process may open.
_SPARE, _SPARE_SHARE = 64, 8


def most_streams(settings: HubSettings, each: int) -> int:
    """Return how many streams a process may have: ``max_connections``, or as many as it has descriptors for.

    :param each: the number of descriptors that a stream uses.
    """
    if settings.max_connections is not None:
        return settings.max_connections
    may_open = _descriptors()
    if may_open is None or not each:
        return sys.maxsize
    return max(1, (may_open - max(_SPARE, may_open // _SPARE_SHARE)) // each)


def _descriptors() -> int | None:
    """Return how many descriptors the process may open; None if the platform has no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if may_open == resource.RLIM_INFINITY else may_open
