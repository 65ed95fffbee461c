"""``ssehub doctor``: follows a stream through its public address, and reports problems and fixes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import warnings
from typing import TYPE_CHECKING

from ssehub.cli.arguments import add_headers, add_log, add_token, shared_log
from ssehub.client.printable import printable
from ssehub.tools.doctor import Finding, Target, examine

if TYPE_CHECKING:
    from ssehub.cli.arguments import Commands

#: Terminal codes for green, yellow, red and grey (ECMA-48 8.3.117).
_COLOURS = {"ok": "32", "warn": "33", "FAIL": "1;31", "skip": "90"}


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser("doctor", help="follow a stream through its public address, and report problems")
    command.add_argument("url", help="the stream as browsers reach it, for instance https://example.org/events")
    command.add_argument(
        "--time", type=float, metavar="SECONDS", help="how long to watch it (20, or one and a half heartbeats)"
    )
    command.add_argument("--streams", type=int, default=6, metavar="N", help="streams to open at once (%(default)s)")
    command.add_argument("--origin", metavar="ORIGIN", help="an origin whose pages use the stream: https://app.example")
    add_token(command, "the service's token, to read its statistics and to send test messages to these streams alone")
    command.add_argument("--stats-url", metavar="URL", help="the service's /stats (by default next to the stream)")
    command.add_argument("--send-url", metavar="URL", help="the service's /send (by default next to the stream)")
    add_log(command, "check this log as well")
    command.add_argument("--size", type=int, default=10_000, help="configured size of the log in entries (%(default)s)")
    trust = command.add_mutually_exclusive_group()
    trust.add_argument("--ca", metavar="FILE", help="trust the certificates in this file")
    trust.add_argument("--insecure", action="store_true", help="trust any certificate")
    command.add_argument("--json", action="store_true", help="one JSON object per line: verdict, check, seen, fix")
    add_headers(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    target = Target(
        options.url,
        headers=dict(options.header),
        token=options.token,
        origin=options.origin,
        streams=options.streams,
        time=options.time,
        send_url=options.send_url,
        stats_url=options.stats_url,
        verify=options.ca or not options.insecure,
        log=options.log,
        log_name=options.name,
        log_size=options.size,
        partitions=options.partitions,
    )
    shared_log(options, options.size)  # raises an error now if its address is invalid
    failed = False
    in_colour = not options.json and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    if options.insecure:  # urllib3 would warn on each request
        warnings.simplefilter("ignore")
    with contextlib.closing(examine(target)) as findings:
        finding = next(findings, None)
        while finding is not None:
            failed = failed or finding.verdict == "FAIL"
            try:
                line = printable(json.dumps(finding._asdict())) if options.json else _line(finding, in_colour)
                print(line, flush=True)
                finding = next(findings, None)
            except KeyboardInterrupt as interrupt:  # raised here, or by the examination at its end
                finding = findings.throw(interrupt)
    return int(failed)


def _line(finding: Finding, in_colour: bool) -> str:
    verdict = f"{finding.verdict:4}"
    if in_colour:
        verdict = f"\x1b[{_COLOURS[finding.verdict]}m{verdict}\x1b[0m"
    fix = f" -> {finding.fix}" if finding.fix else ""
    return f"{verdict}  {printable(f'{finding.check}: {finding.seen}{fix}')}"
