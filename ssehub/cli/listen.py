"""``ssehub listen``: follows a stream in the terminal."""

from __future__ import annotations

import argparse
import io
import json
import logging
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ssehub.cli.arguments import add_headers
from ssehub.cli.terminal import say, show
from ssehub.client import Client, Timeout
from ssehub.client.responses import bare, reason
from ssehub.client.subscription import OWN, check_type
from ssehub.events import Message

if TYPE_CHECKING:
    from ssehub.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser("listen", help="follow a stream in the terminal")
    command.add_argument("url", help="the stream, for instance http://127.0.0.1:8000/events")
    command.add_argument("--event", action="append", metavar="TYPE", help="only events of this type; may be repeated")
    command.add_argument("--last-event-id", metavar="ID", help="continue after this event")
    command.add_argument(
        "--save-place", type=Path, metavar="FILE", help="continue after the id in FILE, and store the last id in it"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object per line: event, data, id")
    command.add_argument(
        "--idle", type=float, default=Timeout().idle, metavar="SECONDS",
        help="seconds without data after which to reconnect (%(default)s); 0: never",
    )  # fmt: skip
    add_headers(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    place = _Place(options.save_place)
    client = Client(
        options.url,
        headers=dict(options.header),
        last_event_id=place.read() if options.last_event_id is None else options.last_event_id,
        reconnect_delay=1.0,
        timeout=Timeout(idle=options.idle or None),
    )
    _tell(client, bare(options.url))
    ended_by = _end_on_signals(client)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    for type in options.event or ():
        check_type(type)
        if type.startswith(OWN):  # a hub's own events need a callback of their own
            client.on_event(type, lambda message: show(_line(message, options.json)))
    # A hub also sends new cursors to a client that gets no messages, and the end of a production. All earlier messages
    # are printed by then.
    for type in ("ssehub.cursor", "ssehub.end"):
        client.on_event(type, lambda message: place.write(client.last_event_id))
    for message in client:
        if not options.event or message.event in options.event:
            show(_line(message, options.json))
        place.write(client.last_event_id)
    if ended_by:
        return 128 + ended_by[0]
    say("ssehub: the server has no more events (204)")
    return 0


class _Place:
    """A file that stores the id of the last event."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._kept = ""

    def read(self) -> str:
        """Return the id in the file. Creates a missing file, so that an invalid name raises an error at the start."""
        if self._file is not None:
            self._file.touch()
            self._kept = self._file.read_text(encoding="utf-8").strip("\r\n")
        return self._kept

    def write(self, id: str) -> None:
        """Replace the file atomically: after a crash it has either the old or the new id."""
        if self._file is not None and id != self._kept:
            beside = self._file.with_name(f"{self._file.name}.new")
            beside.write_text(id, encoding="utf-8")
            beside.replace(self._file)
            self._kept = id


def _tell(client: Client, url: str) -> None:
    """Print what happens to the connection."""
    logging.getLogger("ssehub").setLevel(logging.CRITICAL)  # the log would repeat it
    connected = f"connected to {url}"

    @client.on_connection
    def _opened() -> None:
        nonlocal connected
        say(f"ssehub: {connected}")
        connected = "connected again"

    @client.on_disconnect
    def _ended(error: Exception | None) -> None:
        if error is None and sys.exc_info()[0] is None:  # ended by the server, not by Ctrl-C or a closed pipe
            say("ssehub: the stream has ended")

    @client.on_error
    def _failed(error: Exception, delay: float | None) -> None:
        if delay is not None:  # a final error is also raised
            say(f"ssehub: {reason(error)}; retrying in {delay:.1f} s")

    @client.on_gap
    def _gap(why: str, missed: int | None) -> None:
        say(f"ssehub: messages are missing: {_how_many(missed)} ({why})")


def _end_on_signals(client: Client) -> list[int]:
    """End the client on Ctrl-C and SIGTERM; return a list to which the signal's number is added.

    An exception alone would not do: the interpreter ignores one that is raised while it collects garbage.
    """
    numbers: list[int] = []

    def _end(number: int, frame: FrameType | None) -> None:
        numbers.append(number)
        client.stop()
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    return numbers


def _how_many(missed: int | None) -> str:
    return "an unknown number" if missed is None else str(missed)


def _line(message: Message, as_json: bool) -> str:
    if as_json:
        fields = {"event": message.event, "data": message.data, "id": message.id}
        # Programs that read lines may split at U+2028, and terminals execute control characters.
        text = json.dumps(fields, ensure_ascii=False)
        return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)
    return f"{message.data}" if message.event == "message" else f"{message.event}: {message.data}"
