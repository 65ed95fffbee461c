"""The command line: ``ssehub serve``, ``ssehub listen``, ``ssehub send``."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from ssehub import __version__
from ssehub.client import follow, publish
from ssehub.exceptions import SSEHubError
from ssehub.log import MemoryLog
from ssehub.server.app import create_app
from ssehub.server.hub import Hub
from ssehub.wire import Decoder, Message

#: Milliseconds before ``listen`` connects anew if the stream has not said. Precedent: Chromium's EventSource.
_RECONNECT = 3000


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
        _say(f"ssehub: {error}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ssehub", description="Server-Sent Events for threaded Python.")
    parser.add_argument("--version", action="version", version=f"ssehub {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run a hub as a service, with its console page")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for any (%(default)s)")
    token = os.environ.get("SSEHUB_TOKEN")
    serve.add_argument("--token", default=token, help="what a sender must know ($SSEHUB_TOKEN)")
    serve.add_argument("--history", type=int, default=10_000, help="messages kept for the late (%(default)s)")
    serve.add_argument("--heartbeat", type=float, default=15.0, help="seconds of silence at most (%(default)s)")
    serve.add_argument("--max-connections", type=int, default=1000, help="streams at most (%(default)s)")
    serve.set_defaults(run=_serve)

    listen = commands.add_parser("listen", help="follow a stream in the terminal")
    listen.add_argument("url", help="the stream, for instance http://127.0.0.1:8000/events")
    listen.add_argument("--last-event-id", default="", help="go on after this event")
    listen.set_defaults(run=_listen)

    send = commands.add_parser("send", help="send a message through a service: to everyone, a zone or a client")
    send.add_argument("url", help="the service, for instance http://127.0.0.1:8000")
    send.add_argument("text", help="the message's data")
    send.add_argument("--zone", help="only to this zone")
    send.add_argument("--client-id", help="only to this client")
    send.add_argument("--event", help="the event's type")
    send.add_argument("--id", help="the event's id, instead of one the hub assigns")
    send.add_argument("--token", default=token, help="the service's token ($SSEHUB_TOKEN)")
    send.set_defaults(run=_send)
    return parser


class _QuietHandler(WSGIRequestHandler):
    """werkzeug's handler without a line for every request: the console asks each second."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


def _serve(options: argparse.Namespace) -> int:
    hub = Hub(MemoryLog(options.history), heartbeat=options.heartbeat, max_connections=options.max_connections)
    app = create_app(hub, token=options.token, public=not _is_loopback(options.host))
    server = make_server(options.host, options.port, app, threaded=True, request_handler=_QuietHandler)
    signal.signal(signal.SIGTERM, _interrupt)
    _announce(server, options)
    try:
        server.serve_forever()
    finally:
        hub.close()
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
    last_id: str = options.last_event_id
    retry = _RECONNECT
    while True:
        decoder = Decoder(last_id)
        try:
            for message in follow(options.url, decoder):
                _show(message)
            _say("ssehub: the stream ended")
        except requests.HTTPError:
            raise  # the server answered, and not with a stream: asking again changes nothing
        except (requests.ConnectionError, requests.Timeout) as error:
            _say(f"ssehub: {error}")
        last_id = decoder.last_event_id
        retry = retry if decoder.reconnection_time is None else decoder.reconnection_time
        time.sleep(min(retry, 3_600_000) / 1000)


def _show(message: Message) -> None:
    if message.event == "ssehub.gap":
        _say(f"ssehub: messages are missing: {message.data}")
    elif message.event == "message":
        print(message.data, flush=True)
    elif not message.event.startswith("ssehub."):
        print(f"{message.event}: {message.data}", flush=True)


def _send(options: argparse.Namespace) -> int:
    fields: dict[str, Any] = {"data": options.text, "broadcast": options.client_id is None}
    for name in ("zone", "client_id", "event", "id"):
        if getattr(options, name) is not None:
            fields[name] = getattr(options, name)
    answer = publish(_send_url(options.url), fields, options.token)
    print(f"{answer.get('id')} queued for {answer.get('queued')}")
    return 0


def _send_url(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path="/send")) if parts.path in ("", "/") else url


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
