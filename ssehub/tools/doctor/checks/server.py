"""Server: reports what the service says about its server. Module ``serving`` checks the threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ssehub.client.responses import bare
from ssehub.tools.doctor.finding import Finding, ok, skip, warn
from ssehub.tools.doctor.session import Session

_CHECK = "server"


def ask(session: Session) -> Iterator[Finding]:
    """Report the facts about the server, if the service gives them."""
    facts = session.facts
    if facts is None:
        yield _untold(session)
        return
    yield _worker(facts)
    if facts.get("preload"):
        yield _preload(facts)


def _untold(session: Session) -> Finding:
    where = bare(session.service.stats_url)
    if session.alone.value is not None and "stats" in session.alone.value:
        if session.target.token:
            seen = f"{where} does not know this token, or the token does not allow it"
            return warn(_CHECK, seen, "the service's --token")
        return skip(_CHECK, f"{where} requires authorization for this", "--token")
    seen = (
        "does not respond"
        if session.alone.status is None
        else f"responds with {session.alone.status}, and reports nothing about its server"
    )
    return skip(_CHECK, f"{where} {seen}", "--stats-url, with ssehub's create_app(hub) there")


def _worker(facts: dict[str, Any]) -> Finding:
    software = facts.get("software") or "a server without a name"
    several = facts.get("processes") or ("several" if facts.get("multiprocess") else None)
    parts = [
        str(software),
        str(facts.get("worker") or ""),
        f"requests at once: {facts['threads']}" if facts.get("threads") else "",
        f"processes: {several}" if several else "",
    ]
    return ok(_CHECK, ", ".join(part for part in parts if part))


def _preload(facts: dict[str, Any]) -> Finding:
    if facts.get("worker") == "gevent":
        seen = "--preload with gevent, which patches after the application is imported: a class imported by name"
        return warn("preload", f"{seen} (from queue import SimpleQueue) blocks all streams of a worker", "no --preload")
    return ok("preload", "the hub starts after the fork; threads that were started on import do not run there")
