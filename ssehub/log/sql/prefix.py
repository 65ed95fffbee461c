"""Prefix: the beginning of the names of a log's tables, which is the name of the log."""

from __future__ import annotations

import re

_PREFIX = re.compile("[A-Za-z_][A-Za-z0-9_]{0,39}")


def check_prefix(name: str) -> str:
    """Check the name of a log, with which the names of tables begin.

    :raises ValueError: if it is empty, too long, reserved by SQLite, or contains other characters than letters, digits
        and ``_``.
    :raises TypeError: if it is not a string.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    if not _PREFIX.fullmatch(name):
        raise ValueError(f"name must be 1 to 40 letters, digits and '_', and not begin with a digit: {name!r}")
    if name.lower().startswith("sqlite_"):
        raise ValueError("names that begin with sqlite_ are reserved by SQLite")
    return name
