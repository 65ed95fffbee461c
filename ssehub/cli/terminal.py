"""Terminal: prints the output of commands. It may contain text from the network, so control characters are escaped."""

from __future__ import annotations

import sys

from ssehub.client.printable import printable


def say(text: str) -> None:
    """Print a line to stderr, which keeps it out of pipes. Control characters are escaped."""
    print(printable(text), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print one or several lines to stdout. Control characters are escaped."""
    print(printable(text, lines=True), flush=True)
