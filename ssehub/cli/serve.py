"""``ssehub serve``: runs a hub as a service, with its console page."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import threading
import weakref
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wsgi import ClosingIterator

from ssehub.cli.arguments import add_log, add_token, shared_log
from ssehub.cli.arrivals import Arrivals
from ssehub.cli.terminal import say
from ssehub.cli.workers import Workers
from ssehub.log import MemoryLog
from ssehub.log.sqlite import SQLiteLog
from ssehub.service import create_app
from ssehub.wsgi.hub import Hub
from ssehub.wsgi.sockets import raise_descriptor_limit

if TYPE_CHECKING:
    from ssehub.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser("serve", help="run a hub as a service, with its console page")
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    command.add_argument("--port", type=_port, default=8000, help="port to listen on, 0 for any (%(default)s)")
    add_token(command, "the token that clients need to send, to see who is connected, and to follow with a client id")
    command.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a host name of the service; may be repeated"
    )
    add_log(command, "a log that several processes share")
    command.add_argument(
        "--workers", type=_workers, default=1, metavar="N", help="number of processes, which need --log (%(default)s)"
    )
    command.add_argument("--history", type=int, default=10_000, help="messages to keep for reconnection (%(default)s)")
    command.add_argument("--heartbeat", type=float, default=15.0, help="maximum seconds of silence (%(default)s)")
    command.add_argument("--max-connections", type=int, help="maximum number of streams (by the limit of descriptors)")
    command.add_argument(
        "--request-timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="maximum duration of a request that is not a stream (%(default)s)",
    )
    command.set_defaults(run=_run)


class _Handler(WSGIRequestHandler):
    """werkzeug's handler, with limits, and without logging every request: the console polls each second."""

    arrivals: Arrivals

    def handle(self) -> None:
        """Handle the single request of a connection."""
        self.arrivals.begin(self.connection)
        try:
            super().handle()
        finally:
            self.arrivals.end(self.connection)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing."""


class _OpenResponses:
    """Waits until all responses are written. The threads that write them end with the process."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._asked = 0
        # Weak, because werkzeug does not close the response to a client that has reset its connection.
        self._open: weakref.WeakSet[ClosingIterator] = weakref.WeakSet()
        self._changed = threading.Condition()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._changed:
            self._asked += 1
        try:
            response = ClosingIterator(self._app(environ, start_response), lambda: self._ended(reference()))
            reference = weakref.ref(response)
            self._open.add(response)
            return response
        finally:
            self._ended(None)

    def _ended(self, response: ClosingIterator | None) -> None:
        with self._changed:
            if response is None:
                self._asked -= 1
            else:
                self._open.discard(response)
            self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._asked and not self._open, timeout)


def _run(options: argparse.Namespace) -> int:
    raise_descriptor_limit()
    signal.signal(signal.SIGTERM, _interrupt)
    log = shared_log(options, options.history)
    if isinstance(log, SQLiteLog):  # a file that cannot be used now will seldom be usable later
        with contextlib.closing(log):
            log.cursor()
    if options.workers == 1:
        return _serve(options, None)
    if log is None or not log.shared:
        raise ValueError("several workers need a log that they share: add --log sqlite:hub.db")
    server = _make_server(options, _no_app)
    if server is None:
        return 1
    _announce(server.port, options)
    try:
        Workers(options.workers, lambda: _serve(options, server.fileno())).run()
    finally:
        server.server_close()
    return 0


def _serve(options: argparse.Namespace, descriptor: int | None) -> int:
    """Serve until this process is interrupted.

    :param descriptor: the descriptor of the listening socket; None to make one.
    """
    log = shared_log(options, options.history) or MemoryLog(options.history)
    hub = Hub(log, heartbeat=options.heartbeat, max_connections=options.max_connections, detach=True)
    public = not _is_loopback(options.host)
    hosts = options.allow_host if public else [*options.allow_host, options.host]
    app = create_app(hub, token=options.token, public=public, hosts=hosts)
    open_responses = _OpenResponses(app)
    arrivals = Arrivals(open_responses, options.request_timeout)
    handler = type("Handler", (_Handler,), {"arrivals": arrivals})
    server = _make_server(options, arrivals, handler, descriptor)
    if server is None:
        return 1
    server.service_actions = arrivals.enforce  # type: ignore[method-assign]  # called twice a second
    # Not in this thread, because a signal here could interrupt it while it passes a request on.
    serving = threading.Thread(target=server.serve_forever, name="ssehub-serve", daemon=True)
    serving.start()
    if descriptor is None:
        _announce(server.port, options)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            serving.join()
    finally:
        hub.close()
        open_responses.wait(5.0)
        server.server_close()
    return 0


def _make_server(
    options: argparse.Namespace,
    app: Callable[..., Iterable[bytes]],
    handler: type[WSGIRequestHandler] = _Handler,
    descriptor: int | None = None,
) -> BaseWSGIServer | None:
    """Return a server; None if it cannot listen. The reason is printed."""
    try:
        return make_server(options.host, options.port, app, threaded=True, request_handler=handler, fd=descriptor)
    except SystemExit:  # werkzeug has printed the reason
        say("ssehub: choose another port with --port, or any free one with --port 0")
        return None


def _no_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The application of the process that only starts the workers: it answers no request."""
    raise NotImplementedError


def _announce(port: int, options: argparse.Namespace) -> None:
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"ssehub is at http://{host}:{port}/ (console) and /events (stream); Ctrl-C to stop", flush=True)
    if options.token is None and not _is_loopback(options.host):
        say("ssehub: other machines can reach the service, so sending is not allowed without --token")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _is_loopback(host: str) -> bool:
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(address == "::1" or str(address).startswith("127.") for address in addresses)


def _workers(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:4]) <= 64):
        raise argparse.ArgumentTypeError(f"not a number of processes, 1 to 64: {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:6]) < 65536):
        raise argparse.ArgumentTypeError(f"not a port, 0 to 65535: {text!r}")
    return int(text)
