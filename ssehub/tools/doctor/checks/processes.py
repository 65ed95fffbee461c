"""Processes: do all streams read the same log?"""

from __future__ import annotations

from collections.abc import Iterator

from ssehub.log.position import parse_parts
from ssehub.tools.doctor.finding import Finding, fail, ok, skip
from ssehub.tools.doctor.recording import Recording
from ssehub.tools.doctor.session import Session

_CHECK = "one log"
_FIX = 'one process (gunicorn -w 1), or a log that all share: Hub(RedisLog("redis://..."))'


def ask(session: Session) -> Iterator[Finding]:
    """Compare the places at which streams that began together stand: each log has an epoch of its own."""
    facts = session.facts
    if facts is not None and facts.get("multiprocess") and not facts.get("shared_log"):
        seen = "several processes, and a log in the memory of each: who is connected to one misses what another sends"
        yield fail(_CHECK, seen, _FIX)
        return
    epochs = [found for one in session.streams if (found := _epochs(one)) is not None]
    logs = len(set(epochs))
    if not epochs:
        yield skip(_CHECK, "the streams are not those of a hub of ssehub: nothing tells which log they are of")
    elif logs > 1:
        yield fail(
            _CHECK, f"{len(epochs)} streams are of {logs} logs: each process has one, and misses what others send", _FIX
        )
    elif facts is not None:
        yield ok(_CHECK, "shared by all processes" if facts.get("shared_log") else "in memory, of one process")
    elif len(epochs) == 1:
        yield skip(_CHECK, "one stream cannot tell", "--streams 6")
    else:
        yield ok(_CHECK, f"{len(epochs)} streams are of the same log")


def _epochs(stream: Recording) -> frozenset[tuple[int, int]] | None:
    """Return the partitions that a hub's stream is in, each with its epoch."""
    for message in stream.messages():
        if message.event == "ssehub.open" and message.id:
            places = parse_parts(message.id)
            return frozenset((partition, place.epoch) for partition, place in places.items()) if places else None
    return None
