"""Resuming: checks whether the header Last-Event-ID reaches the application."""

from __future__ import annotations

from collections.abc import Iterator

from ssehub.tools.doctor.finding import Finding, fail, ok, skip, warn
from ssehub.tools.doctor.session import Session

_CHECK = "resuming"
#: An id that is in no log: a hub answers it with a gap.
_UNKNOWN = "ssehub-doctor"
_FIX = 'a proxy strips the header Last-Event-ID: pass it on (nginx: no proxy_set_header Last-Event-ID "";)'


def ask(session: Session) -> Iterator[Finding]:
    """Reconnect with an id: to a hub with an unknown id, to another server with the first id that it has sent."""
    assert session.main is not None
    if session.main.opened is not None:
        yield _to_hub(session)
        return
    events = [one for one in session.main.messages() if one.data is not None]
    ids = list(dict.fromkeys(one.id for one in events if one.id))
    if events and not ids:
        seen = "events come without ids: a client that was away for a moment misses messages without any sign of it"
        yield warn(_CHECK, seen, "an id for each event, and a log to continue from")
        return
    if len(ids) < 2:
        yield skip(_CHECK, "no two events with ids arrived, so there is no id to reconnect with", "--time")
        return
    stream = session.open(**{"Last-Event-ID": ids[0]})
    if stream.wait(lambda: any(one.id == ids[1] for one in stream.messages()), session.patience):
        yield ok(_CHECK, "after a reconnection the stream continues with the event after the last id")
    else:
        yield warn(
            _CHECK,
            "after a reconnection the event after the last id was not sent again",
            f"either no history is kept, or {_FIX}",
        )


def _to_hub(session: Session) -> Finding:
    stream = session.open(**{"Last-Event-ID": _UNKNOWN})
    if stream.wait(lambda: any(one.event == "ssehub.gap" for one in stream.messages()), session.patience):
        return ok(_CHECK, "Last-Event-ID reaches the hub")
    if stream.opened is None:
        return skip(_CHECK, "the response to the second connection was not a stream")
    return fail(_CHECK, "Last-Event-ID does not reach the hub: after each reconnection messages are missing", _FIX)
