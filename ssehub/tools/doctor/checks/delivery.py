"""Delivery: checks whether messages arrive on every stream, and without delay."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import requests

from ssehub.client.responses import bare, reason
from ssehub.tools.doctor.finding import Finding, fail, ok, skip
from ssehub.tools.doctor.fixes import against_buffering, proxy_of
from ssehub.tools.doctor.recording import Recording
from ssehub.tools.doctor.session import Session

_CHECK = "delivery"
#: Maximum number of streams that are sent a test message.
_MOST = 50
#: Delay in seconds above which a message counts as late.
_LATE = 1.0


def ask(session: Session) -> Iterator[Finding]:
    """Send a message to each stream alone: each is a client of its own."""
    if session.is_stuck:
        yield skip(_CHECK, "other requests get no response, so no message can be sent")
        return
    streams = [(one, client) for one in session.streams if one.ended is None and (client := _own_client(one))][:_MOST]
    if not streams:
        why = "the streams are not those of a hub of ssehub, or have a client id that may be connected elsewhere, too"
        yield skip(_CHECK, f"no test message can be sent to them alone: {why}", "an address without client_id=")
        return
    sent = []
    mark = secrets.token_hex(4)
    for number, (one, client) in enumerate(streams):
        data, began = f"ssehub doctor {mark} {number}", time.monotonic()
        try:
            session.service.send(client, data, session.patience)
        except requests.RequestException as error:
            yield skip(_CHECK, f"{bare(session.service.send_url)}: {reason(error)}", "--token, --send-url")
            return
        sent.append((one, data, began))
    yield _arrived(session, sent)


def _arrived(session: Session, sent: list[tuple[Recording, str, float]]) -> Finding:
    deadline = time.monotonic() + session.patience
    delays = []
    for one, data, began in sent:
        if one.wait(lambda one=one, data=data: one.arrival(data), deadline - time.monotonic()):  # type: ignore[misc]
            delays.append(max(0.0, (one.arrival(data) or began) - began))
    lost = len(sent) - len(delays)
    response = sent[0][0].response
    held = against_buffering(proxy_of(response.headers if response is not None else {}))
    if lost:
        seen = f"of {len(sent)} messages, one to each stream, {lost} had not arrived after {session.patience:.1f} s"
        several = "several processes without a shared log (see: one log)"
        is_shared = session.facts is not None and session.facts.get("shared_log")
        return fail(_CHECK, seen, held if is_shared else f"{several}; or a proxy that buffers: {held}")
    seen = f"{len(sent)} messages, one to each stream, arrived within {1000 * max(delays):.0f} ms"
    return fail(_CHECK, f"{seen}: late", held) if max(delays) > _LATE else ok(_CHECK, seen)


def _own_client(stream: Recording) -> str | None:
    """Return the client id of a stream if the hub has created the id for this stream alone."""
    who = stream.opened or {}
    client = who.get("client_id")
    return client if isinstance(client, str) and client == who.get("session_id") else None
