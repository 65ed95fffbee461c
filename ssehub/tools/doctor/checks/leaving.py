"""Leaving: checks whether the server notices a client that has disconnected."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ssehub.tools.doctor.finding import Finding, ok, skip, warn
from ssehub.tools.doctor.session import Session

_CHECK = "leaving"
#: Seconds between two checks.
_LOOK = 0.05
#: Seconds within which a disconnection counts as noticed directly, and not by a heartbeat.
_AT_ONCE = 1.0
_FIX = (
    "a server that shows its socket (gunicorn, werkzeug); no proxy_ignore_client_abort on in nginx; a short heartbeat"
)


def ask(session: Session) -> Iterator[Finding]:
    """Disconnect all streams except the first, and wait until the service no longer lists them."""
    sessions = {str(who["session_id"]) for one in session.others if one.ended is None and (who := one.opened)}
    before = session.service.ask(session.patience).value if sessions and not session.is_stuck else None
    listed = sessions & _listed(before)
    for one in session.others:
        one.close()
    if session.is_stuck:
        yield skip(_CHECK, "other requests get no response, so the list of connections cannot be read")
    elif not sessions:
        yield skip(_CHECK, "there was no second stream of a hub of ssehub to disconnect")
    elif not listed:
        yield skip(_CHECK, "the service does not list its sessions to us", "--token, or run the doctor on its machine")
    else:
        yield _noticed(session, listed)


def _noticed(session: Session, sessions: set[str]) -> Finding:
    began = time.monotonic()
    limit = (
        session.patience
        if session.heartbeat is None
        else max(session.patience, min(session.remaining, 3 * session.heartbeat))
    )
    while time.monotonic() < began + limit:
        answer = session.service.ask(session.patience)
        if answer.value is not None and "zones" in answer.value and not sessions & _listed(answer.value):
            seconds = time.monotonic() - began
            if seconds < _AT_ONCE:
                return ok(_CHECK, f"{len(sessions)} disconnected streams are gone after {1000 * seconds:.0f} ms")
            return warn(_CHECK, f"disconnected streams are gone only after {seconds:.1f} s, by the heartbeat", _FIX)
        if (
            limit > _AT_ONCE
            and (session.facts or {}).get("shows_socket") is False
            and time.monotonic() > began + _AT_ONCE
        ):
            return warn(
                _CHECK,
                "the server does not show its socket: only heartbeats notice the disconnection, after up to three",
                _FIX,
            )
        time.sleep(_LOOK)
    return warn(_CHECK, f"disconnected streams are still listed after {limit:.1f} s", _FIX)


def _listed(value: dict[str, Any] | None) -> set[str]:
    zones = (value or {}).get("zones")
    groups = zones.values() if isinstance(zones, dict) else ()
    listed = [one for group in groups if isinstance(group, list) for one in group if isinstance(one, dict)]
    return {str(one.get("session_id")) for one in listed}
