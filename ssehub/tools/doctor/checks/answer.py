"""Answer: checks whether the response is an event stream with the right headers."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import requests

from ssehub.client.responses import bare, reason
from ssehub.tools.doctor.checks import opening
from ssehub.tools.doctor.finding import Finding, fail, ok, skip, warn
from ssehub.tools.doctor.fixes import against_compression, proxy_of
from ssehub.tools.doctor.recording import Recording
from ssehub.tools.doctor.session import Session

_WHO = "authenticate with --header 'Cookie: ...' or 'Authorization: ...'; an EventSource only sends cookies"
_STATUS = {
    204: "204 means that there are no more events: browsers do not reconnect",
    401: _WHO,
    403: _WHO,
    404: "is the address right, and does the proxy pass it on unchanged?",
    405: "the address has to accept GET",
    429: "a limit on the number of streams; a browser's EventSource stops for good after this status",
    502: "the proxy cannot reach the application: is it running, at the address in the proxy's configuration?",
    503: "no server, or no capacity; a browser's EventSource stops for good after this status; Hub(refuse_with=200)"
    " does not send it",
    504: "the proxy timed out before the headers came: send a first comment at once, and keep a thread free for it",
}


def ask(session: Session) -> Iterator[Finding]:
    """Open the stream, and check the head of the response."""
    session.alone = session.service.ask(session.patience)
    main = session.main = session.open()
    main.settle(session.patience)
    if main.answered is not None:
        yield from judge(session, main)
    elif main.error is not None:
        yield _no_answer(main.error)
    elif session.alone.status is None:
        session.is_watched = True  # there is no stream to watch
        yield fail(
            "answer",
            f"neither the stream nor an ordinary request ({bare(session.service.stats_url)}) is answered in"
            f" {session.patience:.1f} s",
            "the server hangs, or streams for instance use all its threads: Hub(detach=True), or more"
            " threads than streams",
        )


def judge(session: Session, main: Recording) -> Iterator[Finding]:
    """Check the head of the response."""
    response = main.response
    assert response is not None
    session.is_judged = True
    if not main.is_stream:
        yield _refused(response, main.said)
        return
    yield _accepted(response)
    yield _headers(response)
    yield _cors(session.target.origin, session.target.url, response)
    yield _compression(main, response)
    yield opening.judge(session, main)


def _no_answer(error: Exception) -> Finding:
    if isinstance(error, requests.exceptions.SSLError):
        fix = "a certificate that browsers trust and that names this host; --ca FILE or --insecure to continue"
        return fail("answer", f"TLS: {reason(error)}", fix)
    if isinstance(error, requests.exceptions.ContentDecodingError):
        return fail("compression", reason(error), against_compression(""))
    if isinstance(error, requests.TooManyRedirects):
        return fail("answer", reason(error), _WHO)
    if isinstance(error, requests.ConnectTimeout):
        return fail("answer", "no connection within 5 s", "a firewall, or the wrong address?")
    return fail("answer", f"no answer: {reason(error)}", "is the server running, and the address right?")


def _refused(response: requests.Response, said: str) -> Finding:
    kind = response.headers.get("Content-Type", "").partition(";")[0] or "a response without a type"
    seen = f"{response.status_code} {response.reason}, {kind}, from {bare(response.url)}"
    if response.history:
        first = response.history[0]
        seen = f"{first.status_code} to {bare(response.url)}, which is {response.status_code} {kind}"
        return fail(
            "answer", f"not a stream but a redirect: {seen}", f"if it is a login: {_WHO}; else the stream's own address"
        )
    if response.status_code == 200:
        return fail(
            "answer",
            f"not an event stream: {seen}",
            "Content-Type: text/event-stream, or browsers refuse it; or is the stream next to it, at /events?",
        )
    fix = _STATUS.get(response.status_code, "see the server's log")
    return fail("answer", f"not an event stream: {seen}{f': {said}' if said else ''}", fix)


def _accepted(response: requests.Response) -> Finding:
    seen = f"200 {response.headers['Content-Type']}"
    if response.history:
        first = response.history[0].status_code
        return warn(
            "answer",
            f"{seen}, after a redirect ({first}) to {bare(response.url)}",
            "use that address, because each reconnection is redirected again",
        )
    return ok("answer", seen)


def _headers(response: requests.Response) -> Finding:
    headers = response.headers
    charset = headers["Content-Type"].lower().partition("charset=")[2].strip(' "')
    if "Content-Length" in headers:
        return fail(
            "headers",
            f"Content-Length: {headers['Content-Length']}",
            "a stream has no length; something buffers the whole response",
        )
    if charset and charset not in ("utf-8", "utf8"):
        return warn("headers", f"charset={charset}", "an event stream is always UTF-8: charset=utf-8")
    control = headers.get("Cache-Control", "").lower()
    if not any(word in control for word in ("no-cache", "no-store", "private")):
        return warn(
            "headers",
            f"Cache-Control: {control or '(none)'}",
            "Cache-Control: no-cache, or a cache may keep the stream",
        )
    return ok("headers", f"Cache-Control: {control}")


def _cors(origin: str | None, url: str, response: requests.Response) -> Finding:
    if origin is None:
        return skip("cors", "no origin was given whose pages use the stream", "--origin https://app.example")
    parts = urlsplit(url)
    if origin == f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}":
        return ok("cors", f"{origin} is the stream's own origin")
    allowed = response.headers.get("Access-Control-Allow-Origin")
    fix = f'create_app(hub, origins=["{origin}"]), or the header Access-Control-Allow-Origin: {origin}'
    if allowed not in (origin, "*"):
        return fail(
            "cors", f"pages of {origin} may not read it (Access-Control-Allow-Origin: {allowed or '(none)'})", fix
        )
    if allowed == "*" or response.headers.get("Access-Control-Allow-Credentials") != "true":
        return warn(
            "cors",
            f"pages of {origin} may read it, without cookies",
            f"{fix}, and Access-Control-Allow-Credentials: true",
        )
    return ok("cors", f"pages of {origin} may read it, with their users' cookies")


def _compression(main: Recording, response: requests.Response) -> Finding:
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding == "identity":
        return ok("compression", "none")
    fix = against_compression(proxy_of(response.headers))
    if not main.messages():
        return fail("compression", f"{encoding}, and no event arrives: the compressor waits for more data", fix)
    return warn("compression", f"{encoding}; events arrive now, with a flush for each", fix)
