"""Sockets: finds a client's socket behind a WSGI server, and sets and reads its options in the kernel."""

from __future__ import annotations

import _socket  # under gevent, socket.socket would wait in the event loop, but these sockets never wait
import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

#: Where servers put the socket itself: gunicorn (all workers except gevent_pywsgi), gevent_pywsgi, and werkzeug.
_KEYS = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")
#: Where the socket is inside ``wsgi.input`` in other servers: wsgiref, gevent.pywsgi and cheroot, Django's runserver.
_PATHS = ("raw._sock", "rfile.raw._sock", "rfile.rfile.raw._sock", "_read.__self__.raw._sock")

#: Seconds; MAX_TCP_KEEPIDLE in linux/tcp.h.
_LONGEST_IDLE = 32767

# Offsets in struct tcp_info (linux/tcp.h): tcpi_unacked, in segments, and tcpi_last_ack_recv, in milliseconds.
_TCP_INFO_SIZE = 104
_UNACKED = 24
_LAST_ACK = 56


def raise_descriptor_limit() -> None:
    """Raise this process's limit of open descriptors to the maximum. Go and nginx do the same."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not on Windows

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def find_socket(environ: dict[str, Any]) -> int | None:
    """Return the file descriptor of the client's connection, or None if the server does not expose it."""
    for key in _KEYS:
        if (number := _number(environ.get(key))) is not None:
            return number
    if "uwsgi.version" in environ and "uwsgi" in sys.modules:
        number = sys.modules["uwsgi"].connection_fd()
        return number if isinstance(number, int) and number >= 0 else None
    for path in _PATHS:
        if (number := _number(_follow(environ.get("wsgi.input"), path))) is not None:
            return number
    return None


def is_tls(environ: dict[str, Any]) -> bool:
    """Return whether the server itself does TLS, so that its descriptor carries ciphertext."""
    return any(hasattr(environ.get(key), "cipher") for key in _KEYS) or any(
        hasattr(_follow(environ.get("wsgi.input"), path), "cipher") for path in _PATHS
    )


def tune(number: int, heartbeat: float, stall_timeout: float) -> None:
    """Set the kernel's timeouts for a connection whose peer has vanished.

    :param number: the file descriptor.
    :param heartbeat: seconds of silence after which the kernel probes the peer.
    :param stall_timeout: seconds after which the hub itself ends a stalled stream. The kernel's timeout is a little
        longer, because it leads to a traceback in the server's log.
    """
    idle = min(max(1, round(heartbeat)), _LONGEST_IDLE)
    user_timeout = min(round(1000 * (max(stall_timeout, 2 * heartbeat) + 5)), 2**31 - 1)
    options = (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", idle),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", max(1, idle // 3)),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", user_timeout),
    )
    with borrow(number) as sock:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return
        for level, name, value in options:
            if hasattr(socket, name):  # not all systems have all options
                sock.setsockopt(level, getattr(socket, name), value)


def unanswered(sock: Any) -> float:
    """Return the seconds since the last acknowledgement of a peer that owes one; 0.0 if it owes none, or if unknown.

    A peer whose receive window is full still acknowledges the kernel's probes: it is slow, but has not vanished.
    """
    if not hasattr(socket, "TCP_INFO"):
        return 0.0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        unacked, last_ack = (struct.unpack_from("=I", info, field)[0] for field in (_UNACKED, _LAST_ACK))
    except (OSError, struct.error):
        return 0.0
    return last_ack / 1000 if unacked else 0.0


def shut_down(number: int) -> None:
    """Shut the connection down. A thread that blocks in a write to it continues at once."""
    try:
        with borrow(number) as sock:
            sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the connection has already ended


def take_no_more(number: int) -> None:
    """Make the server close the connection after the response, as if the client had disconnected then.

    Without this, a server that stops waits for its keep-alive connections, gunicorn for up to two seconds, and a
    client that reuses such a connection reaches the stopping server again.
    """
    with contextlib.suppress(OSError), borrow(number) as sock:
        sock.shutdown(socket.SHUT_RD)


@contextlib.contextmanager
def borrow(number: int) -> Iterator[Any]:
    """Yield a socket object with a duplicate of the descriptor. Its operations affect the shared connection."""
    sock = _socket.socket(fileno=os.dup(number))
    try:
        yield sock
    finally:
        sock.close()


def _follow(thing: Any, path: str) -> Any:
    for name in path.split("."):
        thing = getattr(thing, name, None)
    return thing


def _number(sock: Any) -> int | None:
    fileno = getattr(sock, "fileno", None)
    if fileno is None or not hasattr(sock, "getsockname"):
        return None
    try:
        number = fileno()
    except OSError:
        return None
    return number if isinstance(number, int) and number >= 0 else None
