"""Opening: checks whether the head and the first bytes of the stream arrive at once."""

from __future__ import annotations

import time

from ssehub.tools.doctor.finding import Finding, fail, ok, warn
from ssehub.tools.doctor.fixes import against_buffering, proxy_of
from ssehub.tools.doctor.recording import Recording
from ssehub.tools.doctor.session import Session

_CHECK = "first bytes"
_FIRST = "send a comment (a line that begins with a colon) when the stream opens, because servers delay the head"


def judge(session: Session, main: Recording) -> Finding:
    """Check the beginning of a stream whose head has arrived."""
    assert main.answered is not None
    head = main.answered - main.began
    if head > session.patience:
        return _held_back(session, main, f"the head came after {head:.1f} s")
    if not main.pieces:
        if main.ended is not None:
            return fail(_CHECK, "the stream ended at once without any data", "see the server's log")
        seen = f"the head came after {head:.3f} s, and no data within {session.patience:.1f} s after it"
        return warn(_CHECK, seen, _FIRST) if session.facts is None else _held_back(session, main, seen)
    if main.ended is not None and not main.messages():
        limit = f" (max_connections={(session.facts or {}).get('max_connections')})" if session.facts else ""
        seen = f"the stream only asks to reconnect in {(main.retries or [0])[-1]} ms, and ends"
        fix = f"the hub is full{limit} or closing: a higher max_connections, or more open files (ulimit -n)"
        return fail(_CHECK, seen, fix)
    return ok(
        _CHECK, f"head after {1000 * head:.0f} ms, first bytes after {1000 * (main.pieces[0].at - main.began):.0f} ms"
    )


def never(session: Session, main: Recording) -> Finding:
    """Check a stream that has not begun within the available time."""
    return _held_back(session, main, f"not even the head arrived within {time.monotonic() - main.began:.1f} s")


def _held_back(session: Session, main: Recording, seen: str) -> Finding:
    proxy = proxy_of(main.response.headers if main.response is not None else session.alone.headers)
    held = against_buffering(proxy)
    if session.facts is not None:
        return fail(_CHECK, f"{seen}; the hub sends at once, so something in between buffers the data", held)
    also = ", although an ordinary request gets a response" if session.alone.status is not None else ""
    return fail(_CHECK, seen + also, f"either the application: {_FIRST}; or a proxy that buffers: {held}")
