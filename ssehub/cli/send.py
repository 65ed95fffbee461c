"""``ssehub send``: sends a message, or each line of the input, through a service or directly to a shared log."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlunsplit

import requests
from urllib3.exceptions import NewConnectionError

from ssehub.cli.arguments import add_headers, add_log, add_token, shared_log, split_http
from ssehub.cli.terminal import say, show
from ssehub.client import Backoff, publish
from ssehub.client.responses import reason
from ssehub.exceptions import SSEHubError
from ssehub.service.fields import packet_of
from ssehub.wsgi.hub import Hub

if TYPE_CHECKING:
    from ssehub.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser("send", help="send a message to all clients, a zone or a client, through a service")
    command.add_argument("url", nargs="?", help="the service, for instance http://127.0.0.1:8000; omit it with --log")
    command.add_argument("text", help="the data of the message; - sends each line of the input as a message")
    add_log(command, "send to this log")
    command.add_argument("--zone", help="only to this zone")
    command.add_argument("--client-id", help="only to this client")
    command.add_argument("--event", help="the event type")
    command.add_argument("--id", help="the event id; by default the hub assigns one")
    add_token(command, "the service's token")
    command.add_argument("--json", action="store_true", help="print the service's response, one JSON object per line")
    add_headers(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    fields: dict[str, Any] = {"broadcast": options.client_id is None}
    for name in ("zone", "client_id", "event", "id"):
        if getattr(options, name) is not None:
            fields[name] = getattr(options, name)
    if options.url and options.log == os.environ.get("SSEHUB_LOG"):
        options.log = None  # a URL on the command line overrides the environment
    if bool(options.log) == bool(options.url):
        raise ValueError("give the address of a service, or --log, not both" if options.url else "give a URL, or --log")
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
                say(f"ssehub: line {number} was not sent: {reason(error)}")
        return int(failed)


def _tell(answer: dict[str, Any], options: argparse.Namespace) -> None:
    # A sender to a log does not know who is connected, and a service only counts the connections of one process.
    said = str(answer.get("id"))
    if not options.log:
        said += f" queued for {answer.get('queued')} in the process that received it"
    show(json.dumps(answer) if options.json else said)


def _to_service(options: argparse.Namespace, stack: contextlib.ExitStack) -> Callable[[dict[str, Any]], dict[str, Any]]:
    session = stack.enter_context(requests.Session())
    url, headers = _send_url(options.url), dict(options.header)

    def _send_once_more(fields: dict[str, Any]) -> dict[str, Any]:
        failures = 0
        while True:
            try:
                return publish(url, fields, options.token, headers=headers, session=session)
            except requests.ConnectionError as error:
                # Only a message that cannot have been sent is sent again. A single message is not retried.
                refused = isinstance(error.__cause__, NewConnectionError)
                if not refused or options.text != "-":
                    raise
                failures += 1
                delay = Backoff().delay(failures, 0.0)
                say(f"ssehub: {reason(error)}; retrying in {delay:.1f} s")
                time.sleep(delay)

    return _send_once_more


def _to_log(options: argparse.Namespace, stack: contextlib.ExitStack) -> Callable[[dict[str, Any]], dict[str, Any]]:
    # The size is so large that this hub trims nothing. Trimming is left to the processes that serve streams.
    log = shared_log(options, 2**31)
    if log is None or not log.shared:
        raise ValueError("a log in memory cannot be reached from another process: send through the service")
    hub = stack.enter_context(contextlib.closing(Hub(log)))
    return lambda fields: hub.send_message(packet_of(fields))._asdict()


def _send_url(url: str) -> str:
    parts = split_http(url)
    folder, _, name = parts.path.rpartition("/")
    # Users often paste the URL of the stream, and the service may be mounted at any path.
    return urlunsplit(parts._replace(path=f"{folder}/send", query="")) if name in ("", "events") else url
