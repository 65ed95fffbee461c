"""The command line: ``ssehub serve``, ``ssehub listen``, ``ssehub send``."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from urllib3.exceptions import NewConnectionError
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wsgi import ClosingIterator

from ssehub import __version__
from ssehub.client import Backoff, Client, publish
from ssehub.client.listeners import OWN, check_type
from ssehub.client.refusal import reason
from ssehub.exceptions import SSEHubError
from ssehub.integrations.settings import open_log
from ssehub.log import Log, MemoryLog
from ssehub.server.app import create_app, packet_of
from ssehub.server.hub import Hub
from ssehub.wire import Message


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param arguments: those of the process by default.
    :returns: the exit code: 0, 1 for a failure, 2 for wrong arguments, 130 if Ctrl-C cut it short.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `ssehub listen ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (SSEHubError, requests.RequestException, ValueError, OSError) as error:
        _say(f"ssehub: {reason(error)}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ssehub", description="Server-Sent Events for threaded Python.")
    parser.add_argument("--version", action="version", version=f"ssehub {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run a hub as a service, with its console page")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    serve.add_argument("--port", type=_port, default=8000, help="port to listen on, 0 for any (%(default)s)")
    token = os.environ.get("SSEHUB_TOKEN")
    serve.add_argument("--token", default=token, help="what a sender must know ($SSEHUB_TOKEN)")
    serve.add_argument("--log", metavar="URL", help="a log that is shared, for instance redis://localhost:6379/0")
    serve.add_argument("--history", type=int, default=10_000, help="messages kept for the late (%(default)s)")
    serve.add_argument("--heartbeat", type=float, default=15.0, help="seconds of silence at most (%(default)s)")
    serve.add_argument("--max-connections", type=int, default=1000, help="streams at most (%(default)s)")
    serve.set_defaults(run=_serve)

    listen = commands.add_parser("listen", help="follow a stream in the terminal")
    listen.add_argument("url", help="the stream, for instance http://127.0.0.1:8000/events")
    listen.add_argument("--event", action="append", metavar="TYPE", help="only events of this type; may be repeated")
    listen.add_argument("--last-event-id", default="", metavar="ID", help="go on after this event")
    listen.add_argument("--json", action="store_true", help="one JSON object a line: event, data, id")
    listen.set_defaults(run=_listen)

    send = commands.add_parser("send", help="send a message through a service: to everyone, a zone or a client")
    send.add_argument("url", nargs="?", help="the service, for instance http://127.0.0.1:8000; not with --log")
    send.add_argument("text", help="the message's data; - sends each line of the input as a message")
    send.add_argument("--log", metavar="URL", help="send to this log, for instance redis://localhost:6379/0")
    send.add_argument("--zone", help="only to this zone")
    send.add_argument("--client-id", help="only to this client")
    send.add_argument("--event", help="the event's type")
    send.add_argument("--id", help="the event's id, instead of one the hub assigns")
    send.add_argument("--token", default=token, help="the service's token ($SSEHUB_TOKEN)")
    send.add_argument("--json", action="store_true", help="print the service's answer, one JSON object a line")
    send.set_defaults(run=_send)
    for command in (serve, send):
        command.add_argument(
            "--name", default="ssehub", help="name of the shared log, one for each hub on a server (%(default)s)"
        )
        command.add_argument(
            "--partitions", type=int, default=1, metavar="N", help="streams that the shared log is spread over (1)"
        )
    for command in (listen, send):
        command.add_argument(
            "--header", action="append", type=_header, default=[], metavar="'NAME: VALUE'", help="may be repeated"
        )
    return parser


class _QuietHandler(WSGIRequestHandler):
    """werkzeug's handler without a line for every request: the console asks each second."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


class _OpenResponses:
    """Know when all responses have been written to their end: the threads that write them end with the process."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._open = 0
        self._changed = threading.Condition()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self._count(+1)
        try:
            return ClosingIterator(self._app(environ, start_response), lambda: self._count(-1))
        except BaseException:
            self._count(-1)
            raise

    def _count(self, change: int) -> None:
        with self._changed:
            self._open += change
            self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._open, timeout)


def _serve(options: argparse.Namespace) -> int:
    log = _log(options, options.history) or MemoryLog(options.history)
    hub = Hub(log, heartbeat=options.heartbeat, max_connections=options.max_connections)
    app = create_app(hub, token=options.token, public=not _is_loopback(options.host))
    open_responses = _OpenResponses(app)
    server = make_server(options.host, options.port, open_responses, threaded=True, request_handler=_QuietHandler)
    signal.signal(signal.SIGTERM, _interrupt)
    # Not in this thread, where the signals arrive: one that comes as a request is handed on would cut it off.
    serving = threading.Thread(target=server.serve_forever, name="ssehub-serve", daemon=True)
    serving.start()
    _announce(server, options)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            serving.join()
    finally:
        hub.close()
        open_responses.wait(5.0)
        server.server_close()
    return 0


def _announce(server: BaseWSGIServer, options: argparse.Namespace) -> None:
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"ssehub is at http://{host}:{server.port}/ (console) and /events (stream); Ctrl-C ends it", flush=True)
    if options.token is None and not _is_loopback(options.host):
        _say("ssehub: it can be reached from elsewhere, so nobody may send without a --token")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _is_loopback(host: str) -> bool:
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(address == "::1" or str(address).startswith("127.") for address in addresses)


def _listen(options: argparse.Namespace) -> int:
    client = Client(options.url, headers=dict(options.header), last_event_id=options.last_event_id, reconnect_delay=1.0)
    client.on_error(_report)
    client.on_gap(lambda reason, missed: _say(f"ssehub: messages are missing: {_how_many(missed)} ({reason})"))
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    for type in options.event or ():
        check_type(type)
        if type.startswith(OWN):  # a hub's own events come only to who names them
            client.on_event(type, lambda message: print(_line(message, options.json), flush=True))
    for message in client:
        if not options.event or message.event in options.event:
            print(_line(message, options.json), flush=True)
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _report(error: Exception, delay: float | None) -> None:
    if delay is not None:  # a final one is raised as well
        _say(f"ssehub: {reason(error)}; once more in {delay:.1f} s")


def _how_many(missed: int | None) -> str:
    return "nobody knows how many" if missed is None else str(missed)


def _line(message: Message, as_json: bool) -> str:
    if as_json:
        fields = {"event": message.event, "data": message.data, "id": message.id}
        return json.dumps(fields, ensure_ascii=False)
    return f"{message.data}" if message.event == "message" else f"{message.event}: {message.data}"


def _send(options: argparse.Namespace) -> int:
    fields: dict[str, Any] = {"broadcast": options.client_id is None}
    for name in ("zone", "client_id", "event", "id"):
        if getattr(options, name) is not None:
            fields[name] = getattr(options, name)
    if bool(options.log) == bool(options.url):
        raise ValueError("say where to send to: either the service's address, or --log")
    with contextlib.ExitStack() as stack:
        send = _to_log(options, stack) if options.log else _to_service(options, stack)
        if options.text != "-":
            _tell(send({**fields, "data": options.text}), options)
            return 0
        failed = False
        for number, line in enumerate(sys.stdin.buffer, 1):
            try:
                _tell(send({**fields, "data": line.decode("utf-8", "replace").rstrip("\r\n")}), options)
            except (SSEHubError, requests.RequestException, ValueError) as error:
                failed = True
                _say(f"ssehub: line {number} was not sent: {reason(error)}")
        return int(failed)


def _tell(answer: dict[str, Any], options: argparse.Namespace) -> None:
    # Who sends past every service cannot know who is there.
    said = str(answer.get("id")) if options.log else f"{answer.get('id')} queued for {answer.get('queued')}"
    print(json.dumps(answer) if options.json else said, flush=True)


def _to_service(options: argparse.Namespace, stack: contextlib.ExitStack) -> Callable[[dict[str, Any]], dict[str, Any]]:
    session = stack.enter_context(requests.Session())
    url, headers = _send_url(options.url), dict(options.header)

    def _send_once_more(fields: dict[str, Any]) -> dict[str, Any]:
        failures = 0
        while True:
            try:
                return publish(url, fields, options.token, headers=headers, session=session)
            except requests.ConnectionError as error:
                # Only what was never sent is sent again; and one message alone is not worth waiting.
                refused = error.args and isinstance(getattr(error.args[0], "reason", None), NewConnectionError)
                if not refused or options.text != "-":
                    raise
                failures += 1
                delay = Backoff().delay(failures, 0.0)
                _say(f"ssehub: {reason(error)}; once more in {delay:.1f} s")
                time.sleep(delay)

    return _send_once_more


def _to_log(options: argparse.Namespace, stack: contextlib.ExitStack) -> Callable[[dict[str, Any]], dict[str, Any]]:
    # So long that nothing is trimmed: that is the business of those who serve.
    hub = stack.enter_context(contextlib.closing(Hub(_log(options, 2**31))))
    return lambda fields: hub.send_message(packet_of(fields))._asdict()


def _log(options: argparse.Namespace, size: int) -> Log | None:
    return open_log(options.log, {"name": options.name, "size": size, "partitions": options.partitions})


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:6]) < 65536):
        raise argparse.ArgumentTypeError(f"not a port, 0 to 65535: {text!r}")
    return int(text)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"not 'NAME: VALUE': {text!r}")
    return name.strip(), value.strip()


def _send_url(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path="/send")) if parts.path in ("", "/") else url


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
