"""Source: the facts about a stream's request that are kept after the request has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ssehub.wsgi import poller, sockets
from ssehub.wsgi.asgi import find_receiver
from ssehub.wsgi.greenlets import uses_greenlets
from ssehub.wsgi.takeover import why_not
from ssehub.wsgi.warnings import is_test

if TYPE_CHECKING:
    from ssehub.wsgi.asgi import Receiver


class Source(NamedTuple):
    """The facts about a stream's request that are kept after the request has ended."""

    #: The descriptor of the client's socket; None if the server does not expose it.
    socket: int | None = None
    #: Why the stream cannot be taken over; None if it can be tried.
    obstacle: str | None = None
    #: Whether the stream releases its thread after it is taken over.
    detaches: bool = False
    #: Whether the server has a single thread for all requests.
    has_one_thread: bool = False
    #: The ASGI events of the request, if it came through a wrapper from ASGI to WSGI.
    receiver: Receiver | None = None


#: The source of a stream without HTTP.
NO_REQUEST = Source()


def source_of(environ: dict[str, Any], detach: bool | None) -> Source:
    """Return the facts about a request for a stream.

    :param detach: the setting of the hub.
    """
    number = sockets.find_socket(environ)
    if number is None and is_test(environ):
        return NO_REQUEST
    obstacle = why_not(environ, number, sockets.is_tls(environ))
    if obstacle is None and not poller.is_available():
        obstacle = "the system has no epoll"
    alone = has_one_thread(environ)
    detaches = obstacle is None and (alone if detach is None else detach)
    return Source(number, obstacle, detaches, alone, find_receiver(environ))


def has_one_thread(environ: dict[str, Any]) -> bool:
    """Return whether a server has a single thread. ``wsgi.multithread`` is also false for servers with greenlets."""
    return not environ.get("wsgi.multithread") and not uses_greenlets()
