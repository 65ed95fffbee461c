"""Silence: checks whether heartbeats arrive in time, and whether the stream survives silence."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ssehub.tools.doctor.checks import answer, opening
from ssehub.tools.doctor.finding import Finding, fail, ok, skip, warn
from ssehub.tools.doctor.fixes import against_buffering, against_idle_limit, proxy_of
from ssehub.tools.doctor.recording import Piece, Recording
from ssehub.tools.doctor.session import Session

#: Seconds of silence after which nginx, uWSGI, mod_wsgi and Amazon's load balancers disconnect by default.
_USUAL_LIMIT = 60.0
#: Seconds within which a heartbeat should arrive, because most servers send one every 15 s.
_USUAL_BEAT = 16.0
#: Seconds. A stream that ends sooner after its last bytes was not cut because of silence.
_SHORT = 0.5
#: Number of heartbeats after which their interval is known, if the service does not report it.
_ENOUGH = 3
_BEAT = "a comment every 15 s: Hub(heartbeat=15)"


def ask(session: Session) -> Iterator[Finding]:
    """Watch the first stream until the time is over or everything is known."""
    main = session.main
    if main is not None and not session.is_watched:
        enough = 1 if session.heartbeat is not None else _ENOUGH
        main.wait(lambda: session.is_judged and main.beats >= enough, session.remaining)
    yield from judge(session)


def judge(session: Session) -> Iterator[Finding]:
    """Report the results so far, once."""
    main = session.main
    if main is None or session.is_watched or (main.answered is None and main.error is not None):
        return
    session.is_watched = True
    if main.answered is None:
        yield opening.never(session, main)
        return
    if not session.is_judged:
        yield from answer.judge(session, main)
    if not main.is_stream or not main.pieces:
        return
    if main.ended is not None:
        yield _ended(session, main, main.ended)
    yield _heartbeat(session, main)
    yield _retry(main)


def _beats(main: Recording) -> list[Piece]:
    """Return the heartbeats, but not the first bytes of the stream."""
    return [piece for piece in list(main.pieces)[1:] if piece.beats]


def _ended(session: Session, main: Recording, ended: float) -> Finding:
    assert main.last is not None and main.answered is not None
    silent, after = ended - main.last, ended - main.answered
    headers = main.response.headers if main.response is not None else {}
    if silent < _SHORT:
        how = "broke off" if main.error is not None else "ended"
        seen = f"the stream {how} after {after:.1f} s, right after its last bytes"
        return warn("silence", seen, "max_age, a restart, a hub that closes, or a limit on the duration of requests?")
    fix = against_idle_limit(proxy_of(headers), silent)
    return fail("silence", f"the stream was cut after {silent:.1f} s of silence", fix)


def _heartbeat(session: Session, main: Recording) -> Finding:
    beats = _beats(main)
    if any(piece.beats > 1 for piece in beats):
        seen = f"up to {max(piece.beats for piece in beats)} heartbeats came in one piece: something buffers them"
        fix = against_buffering(proxy_of(main.response.headers if main.response else {}))
        return fail("heartbeat", seen, fix) if session.heartbeat else warn("heartbeat", seen, fix)
    return _told(session.heartbeat, session, main, beats) if session.heartbeat else _untold(session, main, beats)


def _told(heartbeat: float, session: Session, main: Recording, beats: list[Piece]) -> Finding:
    silence = _silence(main)
    late = 1.25 * heartbeat + 1.0
    if silence > late:
        seen = f"silent for {silence:.1f} s, but the hub's heartbeat is {heartbeat:g} s: something holds it back"
        return fail("heartbeat", seen, against_buffering(proxy_of(main.response.headers if main.response else {})))
    if heartbeat >= _USUAL_LIMIT:
        seen = f"every {heartbeat:g} s, but nginx and others cut streams that are silent for {_USUAL_LIMIT:g} s"
        return warn("heartbeat", seen, "Hub(heartbeat=15)")
    if beats:
        return ok("heartbeat", f"after {main.longest_silence:.1f} s of silence, as the hub reports ({heartbeat:g} s)")
    if main.ended is None and session.remaining <= 0 and session.time > late:
        return ok("heartbeat", f"not needed: never silent for longer than {silence:.1f} s")
    watched = time.monotonic() - session.began
    return skip(
        "heartbeat", f"watched for {watched:.1f} s, but it comes every {heartbeat:g} s", f"--time {2 * heartbeat:g}"
    )


def _untold(session: Session, main: Recording, beats: list[Piece]) -> Finding:
    silence = _silence(main)
    if silence >= _USUAL_LIMIT:
        return warn("heartbeat", f"silent for {silence:.1f} s: many proxies cut at {_USUAL_LIMIT:g} s", _BEAT)
    if beats:
        return ok("heartbeat", f"never silent for longer than {silence:.1f} s")
    if silence > _USUAL_BEAT:
        seen = f"no data for {silence:.1f} s: proxies cut silent streams, and a disconnected client is not noticed"
        return warn("heartbeat", seen, _BEAT)
    watched = time.monotonic() - session.began
    if main.ended is None and watched > _USUAL_BEAT:
        seen = f"none in {watched:.1f} s, but none was due: never silent for longer than {silence:.1f} s"
        return warn("heartbeat", f"{seen}. Is there one while no messages are sent?", f"watch it then, or {_BEAT}")
    return skip("heartbeat", f"none in the {watched:.1f} s that the stream was watched", "--time 60")


def _silence(main: Recording) -> float:
    """Return the longest silence, including the current one."""
    assert main.last is not None
    now = main.ended if main.ended is not None else time.monotonic()
    return max(main.longest_silence, now - main.last)


def _retry(main: Recording) -> Finding:
    if not main.retries:
        return ok("retry", "none; browsers reconnect after about 3 s")
    asked = main.retries[0]
    if asked < 500:
        return warn(
            "retry", f"{asked} ms: after a restart all clients reconnect at once, again and again", "Hub(retry=2000)"
        )
    if asked > 60_000:
        return warn("retry", f"{asked / 1000:g} s: after each cut a client is away for this long", "Hub(retry=2000)")
    return ok("retry", f"clients reconnect after {asked} ms")
