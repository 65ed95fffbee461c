"""Terminal: what is said to the one who sits there, beside a command's output."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Write a line to the errors, where no pipe mistakes it for output."""
    print(text, file=sys.stderr, flush=True)
