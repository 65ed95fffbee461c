"""``ssehub bench``: measures a deployment with many streams, and checks whether messages are lost."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from ssehub.cli.arguments import add_headers, add_token, split_http
from ssehub.cli.terminal import say, show
from ssehub.client.printable import printable
from ssehub.tools.bench.report import Report
from ssehub.tools.bench.run import Plan, Run

if TYPE_CHECKING:
    from ssehub.cli.arguments import Commands

#: Seconds between two progress lines if stderr is not a terminal.
_EVERY = 5.0


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser("bench", help="measure a deployment: many streams, messages at a rate, lost messages")
    command.add_argument("url", help="the stream, for instance http://127.0.0.1:8000/events")
    command.add_argument("--streams", type=int, default=100, metavar="N", help="streams to open (%(default)s)")
    command.add_argument("--rate", type=float, default=10.0, metavar="N", help="messages per second (%(default)g)")
    command.add_argument("--duration", type=float, default=10.0, metavar="S", help="seconds to send for (%(default)g)")
    command.add_argument("--size", type=int, default=100, metavar="N", help="characters of a message (%(default)s)")
    command.add_argument("--zone", help="zone to follow and to send to (by default that of the URL, or a new one)")
    command.add_argument("--send-url", metavar="URL", help="URL to send to (by default send, next to the stream)")
    command.add_argument("--stats-url", metavar="URL", help="URL of the statistics (by default stats, next to that)")
    command.add_argument("--watch", action="store_true", help="do not send, only watch messages of other senders")
    command.add_argument(
        "--patience", type=float, default=10.0, metavar="S",
        help="maximum number of seconds to wait for a stream, a response or the last message (%(default)g)",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print the results as one JSON object")
    add_token(command, "the service's token")
    add_headers(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.watch and options.send_url:
        raise ValueError("--watch and --send-url cannot be used together")
    progress = _Progress()
    try:
        report = Run(_plan(options), progress.tell).run()
    finally:
        progress.end()
    show(json.dumps(report.as_json()) if options.json else _table(report))
    return 130 if report.interrupted else int(not report.right)


def _plan(options: argparse.Namespace) -> Plan:
    parts = split_http(options.url)
    for url in filter(None, (options.send_url, options.stats_url)):
        split_http(url)
    zones = [value for name, value in parse_qsl(parts.query) if name == "zone"]
    if options.zone and zones and zones != [options.zone]:
        raise ValueError("the URL and --zone name different zones")
    zone = options.zone or (zones[0] if zones else f"ssehub-bench-{secrets.token_hex(4)}")
    if not zones and (options.zone or not options.watch):
        query = "&".join(filter(None, (parts.query, urlencode({"zone": zone}))))
        parts = parts._replace(query=query)
    # Pages do not listen to this type.
    fields = {"zone": zone, "event": "ssehub-bench"}
    stream_url = urlunsplit(parts._replace(query="", fragment=""))
    send_url = options.send_url or urljoin(stream_url, "send")
    stats_url = options.stats_url or urljoin(stream_url if options.watch else send_url, "stats")
    token = (("Authorization", f"Bearer {options.token}"),) if options.token else ()
    headers = tuple(options.header)

    def _for(url: str) -> tuple[tuple[str, str], ...]:
        """Return the headers for a URL. The stream's cookies must not be sent to another host."""
        return (*token, *headers) if _host(url) == _host(stream_url) else token

    return Plan(
        urlunsplit(parts), options.streams, options.rate, options.duration, options.size,
        None if options.watch else send_url, fields, headers, _for(send_url), options.patience,
        stats_url, _for(stats_url),
    )  # fmt: skip


def _host(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _table(report: Report) -> str:
    lines = [(name, printable(value)) for name, value in report.lines()]
    width = max(len(name) for name, _ in lines)
    return "\n".join((report.url, *(f"  {name.ljust(width)}  {value}" for name, value in lines)))


class _Progress:
    """Prints the progress: in one line of a terminal, or in a new line from time to time."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._next = time.monotonic() + _EVERY
        self._said = ""

    def tell(self, words: str) -> None:
        """Print the progress, if it is time."""
        if self._is_terminal:
            print(f"\r\x1b[K{printable(words)}", end="", file=sys.stderr, flush=True)
            self._said = words
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY
            say(words)

    def end(self) -> None:
        """Erase the line."""
        if self._said:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
