"""Server: what the service tells of the server it runs on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ssehub.client.refusal import bare
from ssehub.doctor.examination import Examination
from ssehub.doctor.finding import Finding, fail, ok, skip, warn

_CHECK = "server"
_GTHREAD = "gunicorn -c python:ssehub.integrations.gunicorn -k gthread --threads 200 (or -k gevent)"


def ask(exam: Examination) -> Iterator[Finding]:
    """Judge the facts, if they are told."""
    facts = exam.facts
    if facts is None:
        yield _untold(exam)
        return
    yield _worker(facts)
    if str(facts.get("software", "")).startswith("gunicorn"):
        yield _stopping(facts)
    if facts.get("preload"):
        yield _preload(facts)
    yield _limit(facts)


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
    if is_sync(facts):
        return fail(_CHECK, f"{software} with its sync worker: one stream takes the whole worker", _GTHREAD)
    several = facts.get("processes") or ("several" if facts.get("multiprocess") else None)
    parts = [
        str(software),
        str(facts.get("worker") or ""),
        f"{facts['threads']} streams at the most" if facts.get("threads") else "",
        f"processes: {several}" if several else "",
    ]
    return ok(_CHECK, ", ".join(part for part in parts if part))


def is_sync(facts: dict[str, Any]) -> bool:
    """Tell whether the server can do one thing at a time. Others than gunicorn say so without it being true."""
    is_gunicorn = str(facts.get("software", "")).startswith("gunicorn")
    return facts.get("worker") == "sync" or (is_gunicorn and not facts.get("multithread"))


def _stopping(facts: dict[str, Any]) -> Finding:
    if facts.get("hook"):
        return ok("restart", "streams are ended in order when a worker is to stop")
    seen = "gunicorn does not tell the hub when a worker is to stop: a restart waits 30 s and cuts all streams at once"
    return warn("restart", seen, "gunicorn -c python:ssehub.integrations.gunicorn")


def _preload(facts: dict[str, Any]) -> Finding:
    if facts.get("worker") == "gevent":
        seen = "--preload with gevent, which patches after the application was imported: what it has imported by name"
        return warn("preload", f"{seen} (from queue import SimpleQueue) blocks all streams of a worker", "no --preload")
    return ok("preload", "the hub starts after the fork; threads that the application starts at import do not")


def _limit(facts: dict[str, Any]) -> Finding:
    limit, threads = facts.get("max_connections"), facts.get("threads")
    if threads and not is_sync(facts) and (limit is None or limit >= threads):
        seen = f"max_connections={limit}, and the server takes {threads} requests at once: streams can take all of them"
        return warn("limit", seen, f"Hub(max_connections={max(1, threads - 20)})")
    if limit is None:
        seen = "the hub takes any number of streams; how many threads the server has is not known"
        return warn("limit", seen, "Hub(max_connections=...), ten or twenty below the server's threads")
    return ok(
        "limit", f"max_connections={limit}" + (f" of {threads}" if threads else "; the server's threads are not known")
    )
