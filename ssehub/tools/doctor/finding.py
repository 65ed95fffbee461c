"""Finding: what one check has come to."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: ``ok``; ``warn``: it works, and something will be missed one day; ``FAIL``: it does not work; ``skip``: could not be
#: found out.
Verdict = Literal["ok", "warn", "FAIL", "skip"]


class Finding(NamedTuple):
    """Say what one check has come to. Immutable."""

    verdict: Verdict
    #: The name of the check.
    check: str
    #: What was seen; with ``skip``, why nothing was.
    seen: str
    #: How to put it right, if there is something to: the setting, as it is written.
    fix: str = ""


def ok(check: str, seen: str, fix: str = "") -> Finding:
    """Find nothing wrong.

    :param fix: what could be changed all the same.
    """
    return Finding("ok", check, seen, fix)


def warn(check: str, seen: str, fix: str = "") -> Finding:
    """Find what works and could be better."""
    return Finding("warn", check, seen, fix)


def fail(check: str, seen: str, fix: str = "") -> Finding:
    """Find what does not work."""
    return Finding("FAIL", check, seen, fix)


def skip(check: str, why: str, fix: str = "") -> Finding:
    """Find nothing out."""
    return Finding("skip", check, why, fix)
