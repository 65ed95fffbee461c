"""Terminal: what commands write. Much of it comes from servers and senders, and a terminal obeys what it is sent."""

from __future__ import annotations

import sys

from ssehub.client.printable import printable


def say(text: str) -> None:
    """Write a line to the errors, where no pipe mistakes it for output. Nothing in it is a command for the terminal."""
    print(printable(text), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Write output, a line or several. Nothing in it is a command for the terminal."""
    print(printable(text, lines=True), flush=True)
