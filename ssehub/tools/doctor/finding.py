"""Finding: the result of one check."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: ``ok``; ``warn``: it works, but will cause problems in some situations; ``FAIL``: it does not work; ``skip``: it
#: could not be checked.
Verdict = Literal["ok", "warn", "FAIL", "skip"]


class Finding(NamedTuple):
    """The result of one check. Immutable."""

    verdict: Verdict
    #: The name of the check.
    check: str
    #: The observation; with ``skip``, why the check was not possible.
    seen: str
    #: The setting that fixes the problem, as it is written. Empty if there is nothing to fix.
    fix: str = ""


def ok(check: str, seen: str, fix: str = "") -> Finding:
    """Return a finding without a problem.

    :param fix: an optional improvement.
    """
    return Finding("ok", check, seen, fix)


def warn(check: str, seen: str, fix: str = "") -> Finding:
    """Return a finding that works, but has a problem in some situations."""
    return Finding("warn", check, seen, fix)


def fail(check: str, seen: str, fix: str = "") -> Finding:
    """Return a finding that does not work."""
    return Finding("FAIL", check, seen, fix)


def skip(check: str, why: str, fix: str = "") -> Finding:
    """Return a finding that could not be checked."""
    return Finding("skip", check, why, fix)
