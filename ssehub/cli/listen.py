"""``ssehub listen``: follow a stream in the terminal."""

from __future__ import annotations

import argparse
import io
import json
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

from ssehub.cli.arguments import add_headers
from ssehub.cli.terminal import say, show
from ssehub.client import Client
from ssehub.client.listeners import OWN, check_type
from ssehub.client.refusal import reason
from ssehub.wire import Message

if TYPE_CHECKING:
    from ssehub.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser("listen", help="follow a stream in the terminal")
    command.add_argument("url", help="the stream, for instance http://127.0.0.1:8000/events")
    command.add_argument("--event", action="append", metavar="TYPE", help="only events of this type; may be repeated")
    command.add_argument("--last-event-id", default="", metavar="ID", help="go on after this event")
    command.add_argument("--json", action="store_true", help="one JSON object a line: event, data, id")
    add_headers(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    client = Client(options.url, headers=dict(options.header), last_event_id=options.last_event_id, reconnect_delay=1.0)
    client.on_error(_report)
    client.on_gap(lambda reason, missed: say(f"ssehub: messages are missing: {_how_many(missed)} ({reason})"))
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    for type in options.event or ():
        check_type(type)
        if type.startswith(OWN):  # a hub's own events come only to who names them
            client.on_event(type, lambda message: show(_line(message, options.json)))
    for message in client:
        if not options.event or message.event in options.event:
            show(_line(message, options.json))
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _report(error: Exception, delay: float | None) -> None:
    if delay is not None:  # a final one is raised as well
        say(f"ssehub: {reason(error)}; once more in {delay:.1f} s")


def _how_many(missed: int | None) -> str:
    return "an unknown number" if missed is None else str(missed)


def _line(message: Message, as_json: bool) -> str:
    if as_json:
        fields = {"event": message.event, "data": message.data, "id": message.id}
        return json.dumps(fields, ensure_ascii=False)
    return f"{message.data}" if message.event == "message" else f"{message.event}: {message.data}"
