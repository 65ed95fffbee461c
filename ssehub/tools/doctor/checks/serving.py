"""Serving: checks whether the streams use threads of the server, and whether they can use all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ssehub.client.served import Served, served_by_all, served_by_process
from ssehub.tools.doctor.finding import Finding, fail, ok, skip, warn
from ssehub.tools.doctor.fixes import against_holding
from ssehub.tools.doctor.session import Session

_CHECK = "serving"
#: Seconds to wait until the hub has counted a stream that has just begun.
_SETTLE = 1.0
#: Seconds between two requests.
_LOOK = 0.05
#: Servers that start a thread for each connection, so that streams cannot use all threads.
_UNBOUNDED = ("Werkzeug", "WSGIServer")
#: Threads to leave for ordinary requests.
_SPARE = 20


def ask(session: Session) -> Iterator[Finding]:
    """Report how the open streams are served, if the service still responds while they are open."""
    if not session.is_stuck:
        yield from _judge(session, _numbers(session))


def ask_again(session: Session) -> Iterator[Finding]:
    """If the streams use all threads, end them, and report what the service says afterwards."""
    if not session.is_stuck or session.main is None:
        return
    session.main.close()
    deadline = time.monotonic() + max(session.patience, 3 * (session.heartbeat or 0.0))
    session.beside = session.service.ask(session.patience)
    while session.beside.value is None and time.monotonic() < deadline:
        time.sleep(_LOOK)
        session.beside = session.service.ask(session.patience)
    yield from _judge(session, _read(session))


def _numbers(session: Session) -> Served | None:
    """Return how the streams are served, after the hub has counted those that have just begun."""
    deadline = time.monotonic() + _SETTLE
    while True:
        served = _read(session)
        is_counted = served is None or not served.on_threads or served.not_taken or _detach(session) is False
        if is_counted or time.monotonic() > deadline:
            return served
        time.sleep(_LOOK)
        session.beside = session.service.ask(session.patience)


def _read(session: Session) -> Served | None:
    value = session.beside.value if session.beside is not None else None
    here = served_by_process((value or {}).get("stats"))
    # The numbers of other processes are some seconds old. They are only used if this process has no stream.
    return here if here is not None and here.streams else served_by_all(value)


def _detach(session: Session) -> bool | None:
    detach: bool | None = (session.facts or {}).get("detach")
    return detach


def _judge(session: Session, served: Served | None) -> Iterator[Finding]:
    if served is None:
        if session.facts is not None or session.is_stuck:
            yield skip(_CHECK, "the service does not report how it serves its streams", "--stats-url URL")
        return
    facts = session.facts or {}
    holds = bool(served.holding) or session.is_stuck
    if not served.streams and not holds:
        yield skip(_CHECK, "the process that responded has no stream", "--time, or one worker")
        return
    why = _why(served, facts, session.is_stuck) if holds else ""
    fix = against_holding(why)
    if holds and is_single(facts):
        seen = f"{_name(facts)} has one thread, and a stream holds it: {why}"
        yield fail(_CHECK, seen, fix)
    elif session.is_stuck:
        yield fail(_CHECK, f"the streams use all threads of {_name(facts)}: {why}", fix)
    else:
        explained = f" ({why})" if served.on_threads else ""
        yield ok(_CHECK, f"{served}{explained}", fix if served.on_threads else "")
    if session.facts is not None and not (holds and is_single(facts)):
        yield _limit(facts, holds, fix)
    if str(facts.get("software", "")).startswith("gunicorn"):
        yield _stopping(facts, holds)


def is_single(facts: dict[str, Any]) -> bool:
    """Return whether the server has one thread for all requests. Only gunicorn reports this reliably."""
    is_gunicorn = str(facts.get("software", "")).startswith("gunicorn")
    return facts.get("worker") == "sync" or (is_gunicorn and not facts.get("multithread"))


def _name(facts: dict[str, Any]) -> str:
    return " ".join(str(facts[name]) for name in ("software", "worker") if facts.get(name)) or "the server"


def _why(served: Served, facts: dict[str, Any], was_stuck: bool) -> str:
    """Return why streams use threads.

    :param was_stuck: whether the streams had used all threads and were ended.
    """
    if facts.get("detach") is False:
        return "detach=False"
    if served.reason and (served.on_threads or not served.parked):
        return served.reason
    if served.parked or (was_stuck and "detach" in facts and not is_single(facts)):
        return "detach=None, so the thread stays with its stream"
    return "the reason is not known"


def _limit(facts: dict[str, Any], holds: bool, fix: str) -> Finding:
    """Check whether streams can use all threads of the server."""
    limit, threads = facts.get("max_connections"), facts.get("threads")
    shown = "as many streams as descriptors allow" if limit is None else f"max_connections={limit}"
    if not holds:
        return ok("limit", f"{shown}; no stream holds a thread of the server")
    if not threads and str(facts.get("software", "")).startswith(_UNBOUNDED):
        return ok("limit", f"{shown}; the server starts a thread for each")
    if threads and (limit is None or limit >= threads):
        seen = f"{shown}, and the server has {threads} threads: streams can take all of them"
        return warn("limit", seen, f"{fix}; or Hub(max_connections={max(1, threads - _SPARE)})")
    if limit is None:
        seen = f"{shown}, and each uses a thread; the number of the server's threads is not known"
        return warn("limit", seen, f"{fix}; or Hub(max_connections=...), ten or twenty below the server's threads")
    return ok("limit", shown + (f" of {threads} threads" if threads else "; the number of threads is not known"))


def _stopping(facts: dict[str, Any], holds: bool) -> Finding:
    if not holds or facts.get("worker"):
        return ok("restart", "the streams end normally when a worker stops")
    seen = "another handler of SIGTERM hides gunicorn's worker: a restart waits 30 s and then cuts all streams at once"
    return warn("restart", seen, "gunicorn -c python:ssehub.integrations.gunicorn")
