"""Processes: checks whether all streams read the same log."""

from __future__ import annotations

from collections.abc import Iterator

from ssehub.tools.doctor.finding import Finding, fail, ok, skip
from ssehub.tools.doctor.session import Session

_CHECK = "one log"
_FIX = 'one process (gunicorn -w 1), or a log that all processes share: Hub("sqlite:hub.db")'


def ask(session: Session) -> Iterator[Finding]:
    """Compare the cursors with which the streams began: each log has its own epoch."""
    facts = session.facts
    if facts is not None and facts.get("multiprocess") and not facts.get("shared_log"):
        seen = "several processes, each with a log in its own memory: clients miss messages that other processes send"
        yield fail(_CHECK, seen, _FIX)
        return
    epochs = [found for one in session.streams if (found := one.epochs) is not None]
    logs = len(set(epochs))
    if not epochs:
        yield skip(_CHECK, "the streams are not those of a hub of ssehub: they do not show which log they read")
    elif logs > 1:
        yield fail(
            _CHECK, f"{len(epochs)} streams are of {logs} logs: each process has its own, and misses the others'", _FIX
        )
    elif facts is not None:
        yield ok(_CHECK, "shared by all processes" if facts.get("shared_log") else "in memory, of one process")
    elif len(epochs) == 1:
        yield skip(_CHECK, "a single stream does not show it", "--streams 6")
    else:
        yield ok(_CHECK, f"{len(epochs)} streams read the same log")
