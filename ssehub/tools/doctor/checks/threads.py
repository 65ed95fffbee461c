"""Threads: checks whether the server can handle many streams, and ordinary requests at the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ssehub.client.responses import bare
from ssehub.tools.doctor.finding import Finding, fail, ok, skip
from ssehub.tools.doctor.session import Session

_ROOM = (
    "Hub(detach=True), so that streams use no thread; or more threads than streams: gunicorn -k gthread --threads 200"
    " --worker-connections 1200, Hub(max_connections=180)"
)


def ask(session: Session) -> Iterator[Finding]:
    """Open the streams, and make an ordinary request while one is open and while all are open."""
    where = bare(session.service.stats_url)
    if not session.alone.is_there:
        yield skip("other requests", f"{where} does not respond even without a stream", "--stats-url URL")
        return
    session.beside = session.service.ask(session.patience)
    if not session.beside.is_there:
        session.is_stuck = True
        seen = f"with one stream open, {where} does not respond within {session.patience:.1f} s"
        yield fail("other requests", seen, f"the stream uses the only thread. {_ROOM}")
        return
    count = session.target.streams
    if count == 1:
        yield ok("other requests", f"{where} responds while a stream is open")
        return
    session.others = [session.open() for _ in range(count - 1)]
    deadline = time.monotonic() + session.patience
    for one in session.others:
        one.settle(deadline - time.monotonic())
    yield _opened(session, count)
    answer = session.beside = session.service.ask(session.patience)
    if not answer.is_there:
        session.is_stuck = True
        seen = f"with {count} streams open, {where} does not respond within {session.patience:.1f} s"
        yield fail("other requests", seen, f"{_ROOM}; nginx and other proxies also limit connections")
    else:
        yield ok("other requests", f"{where} responds in {1000 * answer.seconds:.0f} ms with {count} streams open")


def _opened(session: Session, count: int) -> Finding:
    begun = [one for one in session.streams if one.ended is None or one.messages()]
    if len(begun) == count:
        return ok("streams", f"{count} are open at once")
    waiting = sum(one.response is None and one.error is None for one in session.others)
    refused = count - len(begun) - waiting
    limit = (session.facts or {}).get("max_connections")
    told = [f"{waiting} wait for a response"] * bool(waiting) + [f"{refused} were refused"] * bool(refused)
    raised = f"max_connections={limit}, or the limit of a proxy: raise it, and the limit of open files (ulimit -n)"
    fix = raised if refused else _ROOM
    return fail("streams", f"of {count} only {len(begun)} are open: {', '.join(told)}", fix)
