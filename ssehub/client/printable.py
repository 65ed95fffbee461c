"""Printable: makes text from other programs safe to print."""

from __future__ import annotations

import re

#: Control characters (C0, DEL, C1), which terminals execute; line separators other than a line feed; and characters
#: that change the display order of text (UAX #9).
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
#: Characters that may stay in a text of several lines.
_LINES = re.compile("[\n\t]")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return the text with each character that a terminal or a log could execute written as ``\u001b``.

    This is JSON's notation, so JSON text keeps its meaning.

    :param lines: whether line feeds and tabs are kept.
    """
    return _UNFIT.sub(lambda found: found[0] if lines and _LINES.match(found[0]) else f"\\u{ord(found[0]):04x}", text)
