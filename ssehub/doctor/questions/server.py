"""Server: what the service tells of the server it runs on. Whether streams hold its threads is asked later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ssehub.client.refusal import bare
from ssehub.doctor.examination import Examination
from ssehub.doctor.finding import Finding, ok, skip, warn

_CHECK = "server"


def ask(exam: Examination) -> Iterator[Finding]:
    """Judge the facts, if they are told."""
    facts = exam.facts
    if facts is None:
        yield _untold(exam)
        return
    yield _worker(facts)
    if facts.get("preload"):
        yield _preload(facts)


def _untold(exam: Examination) -> Finding:
    where = bare(exam.service.stats_url)
    if exam.alone.value is not None and "stats" in exam.alone.value:
        if exam.case.token:
            seen = f"{where} does not know this token, or tells it only to others"
            return warn(_CHECK, seen, "the service's --token")
        return skip(_CHECK, f"{where} tells it only to those who may look", "--token")
    seen = "does not answer" if exam.alone.status is None else f"answers {exam.alone.status}, and tells nothing of it"
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
        seen = "--preload with gevent, which patches after the application was imported: what it has imported by name"
        return warn("preload", f"{seen} (from queue import SimpleQueue) blocks all streams of a worker", "no --preload")
    return ok("preload", "the hub starts after the fork; threads that the application starts at import do not")
