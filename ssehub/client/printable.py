"""Printable: what may be shown of texts that others have sent."""

from __future__ import annotations

import re

#: Control characters (C0, DEL, C1), which terminals take for commands; line separators that are not a line feed; and
#: those by which a text is shown in another order than it has (UAX #9).
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
#: What may stay in a text of several lines.
_LINES = re.compile("[\n\t]")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Write what a terminal or a log would take for a command as ``\u001b``, as JSON does.

    JSON stays the same JSON.

    :param lines: whether line feeds and tabs stay as they are.
    """
    return _UNFIT.sub(lambda found: found[0] if lines and _LINES.match(found[0]) else f"\\u{ord(found[0]):04x}", text)
