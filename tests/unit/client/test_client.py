"""The client: its requests, the messages that it delivers, its reconnections and its failures."""

from __future__ import annotations

import base64
import errno
import gc
import gzip
import json
import logging
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from ssehub import Backoff, Client, Message, StreamRefused, Timeout
from ssehub.client import publish, reason
from ssehub.client.bounded_response import Bounded
from tests.scripted import NO_MORE, QUICK, REFUSED, STREAM, Exchange, Server, bodies, held
from tests.servers import free_port
from tests.streams import GUARD, until

Serve = Callable[..., Server]


def requests_of(client: Client) -> list[Exchange]:
    found: list[Exchange] = client.server.requests  # type: ignore[attr-defined]
    return found


def data(client: Client) -> list[str | None]:
    return [message.data for message in client]


# Messages


def test_the_loop_yields_each_message_and_ends_on_204(follow: Callable[..., Client]) -> None:
    client = follow(bodies("id: 1\ndata: a\n\n", "event: score\nid: 2\ndata: b\n\n"))
    assert list(client) == [Message("a", id="1"), Message("b", "score", id="2")]
    assert client.last_event_id == "2" and client.error is None


def test_hooks_are_called_by_type_as_decorators_and_as_calls(follow: Callable[..., Client]) -> None:
    client = follow(bodies("data: 1\n\nevent: score\ndata: 2\n\nevent: other\ndata: 3\n\n"))
    calls: list[tuple[str, str | None]] = []

    @client.on_event
    def everything(message: Message) -> None:
        calls.append(("all", message.data))

    @client.on_event()
    def everything_too(message: Message) -> None:
        calls.append(("all too", message.data))

    @client.on_event("message")
    def unnamed(message: Message) -> None:
        calls.append(("message", message.data))

    for n in range(2):
        client.on_event("score", lambda message, n=n: calls.append((f"score {n}", message.data)))
    client.on_event(None, lambda message: calls.append(("none", message.data)))
    client.on_event.remove(everything_too)
    client.run()
    assert calls == [
        *[("message", "1"), ("all", "1"), ("none", "1")],
        *[("score 0", "2"), ("score 1", "2"), ("all", "2"), ("none", "2")],
        *[("all", "3"), ("none", "3")],
    ]
    with pytest.raises(ValueError, match="not added"):
        client.on_event.remove(everything, "score")


def test_hooks_are_called_in_the_order_of_the_stream_in_one_thread(follow: Callable[..., Client]) -> None:
    client = follow(
        bodies(": a\ndata: 1\n\n: b\n\ndata: 2\n\n", 'event: ssehub.gap\ndata: {"reason":"trimmed","missed":3}\n\n')
    )
    calls: list[object] = []
    threads: set[int] = set()

    def note(name: str) -> Callable[..., None]:
        def callback(*args: Any) -> None:
            threads.add(threading.get_ident())
            calls.append((name, *(getattr(one, "data", one) for one in args)))

        return callback

    for name in ("connection", "disconnect", "comment", "gap", "exit"):
        getattr(client, f"on_{name}")(note(name))
    client.on_event(note("event"))
    client.run()
    assert calls == [
        *[("connection",), ("comment", "a"), ("event", "1"), ("comment", "b"), ("event", "2"), ("disconnect", None)],
        *[("connection",), ("gap", "trimmed", 3), ("disconnect", None), ("exit",)],
    ]
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ('{"reason":"epoch","missed":null}', ("epoch", None)),
        ("no json", ("unknown", None)),
        ("[]", ("unknown", None)),
        ('{"missed":"x"}', ("unknown", None)),
    ],
)
def test_a_gap_with_invalid_data_is_reported_with_defaults(
    follow: Callable[..., Client], told: str, expected: tuple[str, int | None]
) -> None:
    client = follow(bodies(f"event: ssehub.gap\ndata: {told}\n\n"))
    gaps: list[tuple[str, int | None]] = []
    client.on_gap(lambda reason, missed: gaps.append((reason, missed)))
    client.run()
    assert gaps == [expected]


def test_a_hubs_own_events_need_a_callback_for_their_type(follow: Callable[..., Client]) -> None:
    client = follow(bodies("id: 7\nevent: ssehub.cursor\ndata: .\n\ndata: x\n\n"))
    named: list[Message] = []
    client.on_event("ssehub.cursor", named.append)
    own, everything = client.subscribe("ssehub.cursor"), client.subscribe()
    assert data(client) == ["x"]
    assert [message.id for message in named] == ["7"] and list(own) == named
    assert [message.data for message in everything] == ["x"]


def test_an_error_in_a_hook_is_logged_and_the_stream_continues(
    follow: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = follow(bodies("data: 1\n\n", REFUSED % 503, ": c\n\ndata: 2\n\nevent: ssehub.gap\ndata: x\n\n"))

    def bad(*args: Any) -> None:
        raise RuntimeError("the hook's own fault")

    hooks = ("on_connection", "on_disconnect", "on_event", "on_error", "on_comment", "on_gap", "on_exit")
    for hook in hooks:
        getattr(client, hook)(bad)
    with caplog.at_level(logging.ERROR):
        assert data(client) == ["1", "2"]
    assert {record.getMessage().split(":")[0] for record in caplog.records} == set(hooks)


def test_the_id_is_set_before_the_hooks_and_by_blocks_without_data(follow: Callable[..., Client]) -> None:
    client = follow(bodies("id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\n\n", "data: c\n\n"))
    seen: list[tuple[str | None, str]] = []
    client.on_event(lambda message: seen.append((message.data, client.last_event_id)))
    client.run()
    assert seen == [("a", "1"), ("b", "2"), ("c", "3")]
    assert requests_of(client)[1].headers["last-event-id"] == "3"


def test_base64_is_decoded_and_invalid_data_is_reported_and_skipped(follow: Callable[..., Client]) -> None:
    text = base64.b64encode("gr\u00fc\u00df\ndich".encode()).decode()
    broken = ["no base64!", "YQ", "/w==", "\u00fc"]
    stream = "".join(f"id: {n}\ndata: {one}\n\n" for n, one in enumerate([text, *broken]))
    client = follow(bodies(f"{stream}data: {text[:5]}\ndata: {text[5:]}\n\ndata:\n\n"), base64=True)
    errors: list[tuple[Exception, float | None]] = []
    client.on_error(lambda error, delay: errors.append((error, delay)))
    assert data(client) == ["gr\u00fc\u00df\ndich", "gr\u00fc\u00df\ndich", ""]
    assert [(type(error), delay) for error, delay in errors] == [(ValueError, 0.0)] * 4
    assert client.last_event_id == "4" and client.error is None


# Requests


def test_the_request_equals_that_of_an_event_source(follow: Callable[..., Client]) -> None:
    client = follow(bodies(), path="/events?a=1#frag", params={"zone": "x y"}, last_event_id=" \u2603 ")
    client.run()
    (one,) = requests_of(client)
    assert (one.method, one.target) == ("GET", "/events?a=1&zone=x+y")
    wanted = {"accept": "text/event-stream", "cache-control": "no-cache", "accept-encoding": "identity"}
    assert one.headers.items() >= wanted.items()
    assert one.headers["last-event-id"].encode("latin-1").decode() == "\u2603"


IDS = [
    "7",
    "\u2026",
    "e5p3n<3k0k0s",
    "\u0434\u0430",
    "\u65e5\u672c",
    "\u0627\u0644",
    "\U0001f600",
    "a:b",
    "\x1f\x0b\x7f",
    "x" * 5000,
]


@pytest.mark.parametrize("id", IDS)
def test_ids_in_any_script_are_sent_back_unchanged(follow: Callable[..., Client], id: str) -> None:
    client = follow(bodies(f"id: {id}\ndata: x\n\n"))
    client.run()
    assert requests_of(client)[1].headers["last-event-id"].encode("latin-1") == id.encode()


def test_an_id_with_leading_whitespace_does_not_end_the_client(follow: Callable[..., Client]) -> None:
    client = follow(bodies("id: \x0b\x0cx\ndata: x\n\n", "id: \x0c\ndata: y\n\n"))
    assert data(client) == ["x", "y"]
    assert [one.headers.get("last-event-id") for one in requests_of(client)] == [None, "x", None]


def test_an_id_that_was_reset_is_not_sent(follow: Callable[..., Client]) -> None:
    client = follow(bodies("data: x\n\n", "id\ndata: y\n\n"), last_event_id="5")
    assert [message.id for message in client] == ["5", ""]
    sent = [one.headers.get("last-event-id") for one in requests_of(client)]
    assert sent == ["5", "5", None] and client.last_event_id == ""


def test_functions_are_called_for_each_attempt(follow: Callable[..., Client]) -> None:
    count = iter(range(100))
    client = follow(bodies("data: x\n\n", REFUSED % 503, "data: y\n\n"))
    base = client.server.url  # type: ignore[attr-defined]
    fresh = Client(
        lambda: f"{base}/{next(count)}",
        method="POST",
        headers=lambda: {"X-Count": str(next(count))},
        params=lambda: {"n": next(count)},
        body=lambda: f"body {next(count)}",
        auth=lambda: ("user", str(next(count))),
        backoff=QUICK,
        reconnect_delay=0,
        reconnect=True,
    )
    assert data(fresh) == ["x", "y"]
    seen = [(one.target, one.headers["x-count"], one.body, one.headers["authorization"]) for one in requests_of(client)]
    assert len(seen) == len(set(seen)) == 4
    assert len({value for one in seen for value in one}) == 16


def test_a_body_is_sent_again_and_json_has_its_type(follow: Callable[..., Client]) -> None:
    for options, kind in (
        ({"body": b"raw"}, None),
        ({"body": {"a": "1"}}, "application/x-www-form-urlencoded"),
        ({"json": {"a": 1}}, "application/json"),
        ({"json": lambda: {"a": 1}}, "application/json"),
    ):
        client = follow(bodies("data: x\n\n"), method="POST", reconnect=True, **options)
        client.run()
        one, two = requests_of(client)
        assert one.method == two.method == "POST" and one.body == two.body != b""
        assert one.headers.get("content-type") == kind
        if kind == "application/json":
            assert json.loads(one.body) == {"a": 1}


def test_auth_may_change_the_prepared_request(follow: Callable[..., Client]) -> None:
    def sign(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        prepared.headers["X-Signed"] = prepared.path_url
        return prepared

    client = follow(bodies(), path="/p", auth=sign)
    client.run()
    assert requests_of(client)[0].headers["x-signed"] == "/p"


def test_an_error_of_a_function_ends_the_client_unless_it_is_a_connection_error(
    follow: Callable[..., Client],
) -> None:
    broken = follow(bodies(), headers=lambda: {}["token"])
    with pytest.raises(KeyError):
        broken.run()
    answers = iter([requests.ConnectionError("the token server is away"), None])

    def token() -> dict[str, str]:
        if error := next(answers):
            raise error
        return {"Authorization": "Bearer x"}

    client = follow(bodies(), headers=token)
    client.run()
    assert requests_of(client)[0].headers["authorization"] == "Bearer x"
    assert not requests_of(broken)


class OwnAdapter(HTTPAdapter):
    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        request.headers["X-Adapter"] = "own"
        return super().send(request, *args, **kwargs)


def test_a_users_session_is_used_and_not_closed(follow: Callable[..., Client]) -> None:
    def script(exchange: Exchange) -> None:
        head = STREAM[:-2] + b"Set-Cookie: seen=%d\r\n\r\n" % exchange.number
        exchange.send(head + b"data: x\n\n" if exchange.number == 1 else NO_MORE)

    with requests.Session() as session:
        session.auth, session.headers["X-Mine"] = ("me", "secret"), "yes"
        session.cookies.set("mine", "1")
        client = follow(script, session=session)
        before = dict(session.adapters)
        client.run()
        assert dict(session.adapters) == before and session.cookies["seen"] == "1"
        first, second = requests_of(client)
        assert first.headers["x-mine"] == "yes" and first.headers["authorization"].startswith("Basic")
        assert first.headers["cookie"] == "mine=1" and "seen=1" in second.headers["cookie"]
        session.mount("http://", OwnAdapter())
        own = follow(bodies("data: x\n\n"), session=session)
        assert data(own) == ["x"] and requests_of(own)[0].headers["x-adapter"] == "own"


def test_a_proxy_is_used(scripted: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = scripted(bodies("data: x\n\n"))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    client = Client("http://stream.invalid/events", backoff=QUICK, reconnect_delay=0)
    assert data(client) == ["x"] and proxy.requests[0].target == "http://stream.invalid/events"


# Reconnections and failures


class Troubles(list[tuple[Exception, "float | None"]]):
    def __init__(self, client: Client) -> None:
        super().__init__()
        client.on_error(lambda error, delay: self.append((error, delay)))

    @property
    def delays(self) -> list[float | None]:
        return [delay for _, delay in self]


@pytest.mark.parametrize("status", [204, 205, 301, 400, 401, 404, 500, 503])
def test_a_status_ends_the_client_unless_it_is_in_retry_status(follow: Callable[..., Client], status: int) -> None:
    client = follow(bodies(REFUSED % status), retry_status=())
    troubles = Troubles(client)
    if status == 204:
        client.run()
        assert troubles == []
    else:
        with pytest.raises(StreamRefused, match=str(status)) as caught:
            client.run()
        assert caught.value.response.status_code == status
        assert client.error is caught.value and troubles == [(caught.value, None)]
        with pytest.raises(StreamRefused):
            next(iter(client))
    assert len(requests_of(client)) == 1


def wait_after(follow: Callable[..., Client], *headers: str) -> float:
    """Return the delay of a client after a refusal with these headers."""
    client = follow(bodies("\r\n".join(["HTTP/1.1 503 No", *headers, "", ""]).encode()))
    troubles = Troubles(client)
    client.on_error(lambda error, delay: client.stop())
    client.run()
    ((error, delay),) = troubles
    assert delay is not None and isinstance(error, StreamRefused)
    return delay


def date(seconds: float) -> str:
    return format_datetime(datetime.now(timezone.utc) + timedelta(seconds=seconds), usegmt=True)


def test_retry_after_is_respected_in_both_forms_up_to_a_day(follow: Callable[..., Client]) -> None:
    for value, least, most in (
        ("120", 120, 132),
        (date(500), 400, 550),
        ("9" * 30, 86400, 86400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400, 86400),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 1),
        ("soon", 0, 1),
        ("-5", 0, 1),
    ):
        assert least <= wait_after(follow, f"Retry-After: {value}") <= most


@pytest.mark.parametrize("zone", ["", " -0000", " GMT"])
def test_a_date_in_retry_after_is_in_utc_and_by_the_servers_clock(
    follow: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        until = date(500).removesuffix(" GMT") + zone
        assert 400 <= wait_after(follow, f"Retry-After: {until}") <= 550
        ahead = f"Date: {date(7000)}", f"Retry-After: {date(7100)}"
        assert 90 <= wait_after(follow, *ahead) <= 120
    finally:
        monkeypatch.undo()
        time.tzset()


def test_refused_clients_do_not_reconnect_at_the_same_instant(follow: Callable[..., Client]) -> None:
    assert len({wait_after(follow, "Retry-After: 1000") for _ in range(5)}) == 5


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, *range(520, 525), 529])
def test_the_client_tries_again_after_these_statuses(follow: Callable[..., Client], status: int) -> None:
    assert data(follow(bodies(REFUSED % status, "data: x\n\n"))) == ["x"]


CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("application/json", '{"error": {"message": "no credit", "type": "x"}}', "no credit"),
        ("application/json; charset=utf-8", '{"detail": "Not \u00fcber"}', "Not \u00fcber"),
        ("application/problem+json", '{"type": "about:blank", "title": "No", "detail": "too late"}', "too late"),
        ("application/problem+json", '{"title": "No way"}', "No way"),
        ("application/json", '{"message": "gone"}', "gone"),
        ("application/json", '{"detail": [{"loc": ["q"], "msg": "missing"}]}', '"msg": "missing"'),
        ("application/json", '{"error": "invalid_token", "error_description": "expired"}', "invalid_token"),
        ("text/plain", "go\naway\x1b[31m\u202e", "go away [31m"),
    ],
)
@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
def test_a_refusal_has_a_reason(follow: Callable[..., Client], kind: str, body: str, said: str, framing: str) -> None:
    head, content = f"HTTP/1.1 404 No\r\nContent-Type: {kind}\r\n".encode(), body.encode()
    rest = {
        "length": b"Content-Length: %d\r\n\r\n%s" % (len(content), content),
        "chunks": CHUNKS % (len(content), content),
        "close": b"\r\n" + content,
    }
    with pytest.raises(StreamRefused) as caught:
        follow(bodies(head + rest[framing])).run()
    assert said in str(caught.value) and "\x1b" not in str(caught.value)
    assert caught.value.response.content == content


def test_an_html_page_is_not_a_reason_but_is_kept(follow: Callable[..., Client]) -> None:
    with pytest.raises(StreamRefused) as caught:
        follow(bodies(b"HTTP/1.1 404 No\r\nContent-Type: text/html\r\n\r\n<p>No.")).run()
    assert "<p>" not in str(caught.value) and caught.value.response.text == "<p>No."


@pytest.mark.parametrize(
    "head",
    [
        STREAM[:-2],
        STREAM[:-4],
        STREAM[:17],
        STREAM[:15],
        STREAM[:30],
        b"HTTP/1.1 404 No\r\nContent-Type: tex",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX: y",
    ],
)
def test_an_incomplete_head_is_a_failed_attempt(follow: Callable[..., Client], head: bytes) -> None:
    client = follow(bodies(head, "data: x\n\n"))
    troubles = Troubles(client)
    assert data(client) == ["x"]
    assert [type(error) for error, _ in troubles] == [requests.ConnectionError]


@pytest.mark.parametrize("status", [100, 102, 103, 150])
def test_interim_responses_are_skipped(follow: Callable[..., Client], status: int) -> None:
    interim = b"HTTP/1.1 %d Wait\r\nLink: </x>\r\n\r\n" % status
    assert data(follow(bodies(interim * 3 + STREAM + b"data: x\n\n"))) == ["x"]


def typed(*lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *(f"Content-Type: {line}" for line in lines), "", "data: x\n\n"]).encode()


@pytest.mark.parametrize(
    "lines",
    [
        ("text/html", "text/event-stream"),
        ("text/event-stream", "text/event-stream; charset=utf-8"),
        ("text/event-stream", "*/*"),
        ("text/event-stream", "nonsense"),
        ("text/html, text/event-stream",),
        ('text/html; a=", text/html", TEXT/Event-Stream',),
        ("text/event-stream,",),
    ],
)
def test_the_last_valid_content_type_counts(follow: Callable[..., Client], lines: tuple[str, ...]) -> None:
    assert data(follow(bodies(typed(*lines)))) == ["x"]


@pytest.mark.parametrize(
    "lines", [("text/event-stream", "text/html"), ("*/*",), ("text",), ('text/html; a="text/event-stream',)]
)
def test_another_content_type_is_refused(follow: Callable[..., Client], lines: tuple[str, ...]) -> None:
    with pytest.raises(StreamRefused):
        follow(bodies(typed(*lines))).run()


def test_a_connection_that_times_out_in_the_system_is_tried_again(
    follow: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    times_out = iter([True])
    read = Bounded.readinto

    def readinto(self: Bounded, buffer: Any) -> int | None:
        if self._until is None and next(times_out, False):
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
        return read(self, buffer)

    monkeypatch.setattr(Bounded, "readinto", readinto)
    client = follow(bodies("data: x\n\n", "data: y\n\n"), timeout=Timeout(idle=None))
    troubles = Troubles(client)
    assert data(client)[-1] == "y"
    assert [type(error) for error, _ in troubles] == [requests.ReadTimeout]


def test_a_server_that_accepts_and_closes_gets_few_connections(follow: Callable[..., Client]) -> None:
    client = follow(lambda exchange: exchange.send(STREAM + b": hello\n\n"), backoff=Backoff(0.001, 2, 0.2, jitter=0))
    troubles = Troubles(client)
    client.on_error(lambda error, delay: client.stop() if len(troubles) == 6 else None)
    client.run()
    assert troubles.delays == [pytest.approx(0.001 * 2**n) for n in range(1, 7)]


def test_failures_count_until_a_message_arrives(follow: Callable[..., Client]) -> None:
    no = REFUSED % 503
    client = follow(bodies(no, no, "data: x\n\n", no, no), backoff=Backoff(0.001, 2, 0.2, jitter=0))
    troubles = Troubles(client)
    assert data(client) == ["x"]
    # After the script, there may be time for one more attempt.
    assert troubles.delays[:4] == [pytest.approx(delay) for delay in (0.002, 0.004, 0.002, 0.004)]


def test_a_stream_that_breaks_off_is_reported_and_resumed(follow: Callable[..., Client]) -> None:
    chunked = STREAM[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
    client = follow(bodies(chunked + b"d\r\nid:9\ndata:x\n\n\r\n50\r\ndata: never", "data: y\n\n"))
    troubles = Troubles(client)
    ends: list[Exception | None] = []
    client.on_disconnect(ends.append)
    assert data(client) == ["x", "y"]
    assert isinstance(ends[0], requests.ConnectionError) and ends[1] is None
    assert [error for error, _ in troubles] == [ends[0]]
    assert requests_of(client)[1].headers["last-event-id"] == "9"


def test_max_attempts_counts_consecutive_failures(follow: Callable[..., Client]) -> None:
    no = REFUSED % 503
    client = follow(bodies(no, no, "data: x\n\n", no, no, no, no), max_attempts=3)
    troubles = Troubles(client)
    got: list[str | None] = []
    client.on_event(lambda message: got.append(message.data))
    with pytest.raises(StreamRefused):
        client.run()
    assert got == ["x"] and len(requests_of(client)) == 6
    assert [delay is None for delay in troubles.delays] == [False, False, False, False, True]


def test_max_elapsed_ends_the_client_before_a_wait_that_would_exceed_it(follow: Callable[..., Client]) -> None:
    script = bodies(b"HTTP/1.1 503 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n", "retry: 9000\ndata: x\n\n")
    client = follow(script, max_elapsed=0.5)
    with pytest.raises(StreamRefused):
        client.run()
    assert len(requests_of(client)) == 1
    nobody = Client(f"http://127.0.0.1:{free_port()}/", max_elapsed=0.2, backoff=QUICK, reconnect_delay=0)
    with pytest.raises(requests.ConnectionError):
        nobody.run()


def test_the_retry_of_the_stream_is_the_minimum_wait_for_all_connections(follow: Callable[..., Client]) -> None:
    client = follow(bodies("retry: 40\ndata: x\n\n", "data: y\n\n", REFUSED % 503))
    troubles = Troubles(client)
    assert data(client) == ["x", "y"]
    assert troubles.delays == [pytest.approx(0.04)]


def test_a_reconnection_time_of_26_digits_is_limited_to_a_day(follow: Callable[..., Client]) -> None:
    client = follow(bodies("retry: 99999999999999999999999999\n"))
    troubles = Troubles(client)
    client.start()
    until(lambda: troubles)
    assert troubles.delays == [86400.0] and client.stop(GUARD)


@pytest.mark.parametrize("id_first", [True, False])
def test_an_event_that_is_too_large_is_skipped_and_not_requested_again(
    follow: Callable[..., Client], id_first: bool
) -> None:
    id, large = "id: 2\n", f"data: {'x' * 2000}\n"
    big = f"event: big\n{id + large if id_first else large + id}\n"
    client = follow(bodies(f"id: 1\ndata: a\n\n{big}", f"{big}id: 3\ndata: b\n\n", big), max_event_size=1000)
    troubles = Troubles(client)
    gaps: list[tuple[str, int | None, str]] = []
    client.on_gap(lambda reason, missed: gaps.append((reason, missed, client.last_event_id)))
    assert data(client) == ["a", "b"] and troubles == []
    assert gaps == [("too_large", 1, "2")] * 3
    assert [one.headers.get("last-event-id") for one in requests_of(client)] == [None, "2", "3", "2"]


def test_a_stream_that_ends_within_a_too_large_event_has_its_own_error(follow: Callable[..., Client]) -> None:
    client = follow(bodies(f"data: {'x' * 2000}"), max_event_size=1000, max_attempts=1)
    with pytest.raises(requests.ConnectionError, match="max_event_size"):
        client.run()


def test_the_response_callback_gets_each_response_and_may_accept_it(follow: Callable[..., Client]) -> None:
    seen: list[int] = []

    def look(response: requests.Response) -> bool:
        seen.append(response.status_code)
        return "Take" in response.headers

    client = follow(
        bodies(REFUSED % 503, b"HTTP/1.1 206 Odd\r\nContent-Type: text/plain\r\nTake: it\r\n\r\ndata: x\n\n"),
        response_callback=look,
    )
    assert data(client) == ["x"] and seen == [503, 206, 204]

    def refuse(response: requests.Response) -> None:
        raise LookupError("not this one")

    client = follow(bodies("data: x\n\n"), response_callback=refuse)
    with pytest.raises(LookupError):
        client.run()
    assert isinstance(client.error, LookupError)


def test_restart_reconnects_at_once_without_an_error(follow: Callable[..., Client]) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.number == 3:
            exchange.send(b"HTTP/1.1 503 No\r\nRetry-After: 3600\r\n\r\n")
            return
        exchange.send(STREAM + f"id: {exchange.number}\ndata: {exchange.number}\n\n".encode())
        exchange.hold()

    client = follow(script)
    troubles, ends = Troubles(client), []
    client.on_disconnect(ends.append)
    got = client.subscribe()
    client.start()
    assert got.get(GUARD).data == "1"
    client.restart()
    assert got.get(GUARD).data == "2"
    client.restart("wanted")
    until(lambda: troubles)  # it waits for an hour
    client.restart("")
    assert got.get(GUARD).data == "4"
    client.on_event("message", lambda message: client.restart("from a hook") if message.data == "5" else None)
    client.restart()
    assert [got.get(GUARD).data for _ in range(2)] == ["5", "6"]
    sent = [one.headers.get("last-event-id") for one in requests_of(client)]
    assert sent == [None, "1", "wanted", None, "4", "from a hook"]
    assert len(troubles) == 1 and ends == [None] * 4


def test_each_phase_has_a_timeout_of_its_own(follow: Callable[..., Client]) -> None:
    client = follow(held(), timeout=Timeout(headers=0.05), max_attempts=1)
    with pytest.raises(requests.ReadTimeout):
        client.run()

    def half(exchange: Exchange) -> None:
        exchange.send(STREAM + b"data: x\n\ndata: half")
        exchange.hold()

    client = follow(half, timeout=Timeout(idle=0.05))
    ends: list[Exception | None] = []
    client.on_disconnect(ends.append)
    client.on_disconnect(lambda error: client.stop() if len(ends) == 2 else None)
    assert data(client) == ["x", "x"]
    assert all(isinstance(error, requests.ReadTimeout) for error in ends)


def test_the_idle_timeout_starts_at_the_last_byte_of_any_kind(follow: Callable[..., Client]) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.number > 1:
            exchange.send(NO_MORE)
            return
        exchange.send(STREAM)
        for _ in range(24):
            threading.Event().wait(0.05)
            exchange.send(b":\n")
        exchange.send(b"data: x\n\n")

    client = follow(script, timeout=(1.0, 1.0, 1.0))
    ends: list[Exception | None] = []
    client.on_disconnect(ends.append)
    assert data(client) == ["x"] and ends == [None]


# Requests that must not be sent twice


def test_a_post_is_not_repeated_after_its_stream(follow: Callable[..., Client]) -> None:
    for method in ("POST", "PATCH", "post"):
        client = follow(bodies("data: x\n\n", "data: y\n\n"), method=method, body=b"q")
        assert data(client) == ["x"] and client.error is None and client.stop()
        assert len(requests_of(client)) == 1


CUT = STREAM[:-2] + b"Content-Length: 100\r\n\r\ndata: x\n\n"


@pytest.mark.parametrize("head", [CUT, STREAM[:-10], b"HTTP/1.1 2", b""], ids=["body", "head", "status", "nothing"])
def test_a_post_that_breaks_off_is_a_final_failure(follow: Callable[..., Client], head: bytes) -> None:
    client = follow(bodies(head, "data: y\n\n"), method="POST", body=b"q")
    with pytest.raises(requests.ConnectionError):
        client.run()
    assert len(requests_of(client)) == 1 and isinstance(client.error, requests.ConnectionError)


def test_a_post_is_repeated_if_it_was_refused_temporarily_or_not_sent(follow: Callable[..., Client]) -> None:
    client = follow(bodies(REFUSED % 503, REFUSED % 429, "data: x\n\n"), method="POST", body=b"q")
    assert data(client) == ["x"] and len(requests_of(client)) == 3
    tokens = iter([requests.ReadTimeout("the token server is slow"), None])

    def token() -> dict[str, str]:
        if error := next(tokens):
            raise error
        return {}

    client = follow(bodies("data: x\n\n"), method="POST", headers=token)
    assert data(client) == ["x"]
    nobody = Client(f"http://127.0.0.1:{free_port()}/", method="POST", max_attempts=3, backoff=QUICK, reconnect_delay=0)
    troubles = Troubles(nobody)
    with pytest.raises(requests.ConnectionError):
        nobody.run()
    assert len(troubles) == 3


def test_reconnect_overrides_the_method(follow: Callable[..., Client]) -> None:
    client = follow(bodies("data: x\n\n", CUT, "data: y\n\n"), method="POST", reconnect=True)
    assert data(client) == ["x", "x", "y"]
    client = follow(bodies(REFUSED % 503, "data: x\n\n", "data: y\n\n"), reconnect=False)
    assert data(client) == ["x"]
    client = follow(bodies(CUT, "data: y\n\n"), reconnect=False)
    with pytest.raises(requests.ConnectionError):
        client.run()
    client = follow(bodies(STREAM + b": nothing\n\n", "data: y\n\n"), reconnect=False)
    assert data(client) == []


def test_streams_that_break_off_count_as_failures_even_with_messages(follow: Callable[..., Client]) -> None:
    client = follow(bodies(*[CUT] * 9), max_attempts=3)
    troubles = Troubles(client)
    with pytest.raises(requests.ConnectionError):
        client.run()
    assert len(requests_of(client)) == 3 and troubles.delays[-1] is None
    client = follow(lambda exchange: exchange.send(CUT), max_elapsed=0.3)
    with pytest.raises(requests.ConnectionError):
        client.run()
    assert len(requests_of(client)) > 1
    client = follow(bodies(CUT, "data: y\n\n", CUT, "data: y\n\n"), max_attempts=2)
    assert data(client) == ["x", "y", "x", "y"]


def raises(status: int) -> Callable[..., object]:
    """Return a function that raises the error of ``requests`` for a response of another server."""
    answer = requests.Response()
    answer.status_code = status
    return lambda *args, **options: answer.raise_for_status()


@pytest.mark.parametrize("where", ["response_callback", "headers", "session", "adapter"])
@pytest.mark.parametrize("status", [401, 503])
def test_an_http_error_from_any_source_is_judged_by_its_status(
    follow: Callable[..., Client], status: int, where: str
) -> None:
    calls: list[int] = []

    def fail(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return raises(status)()

    with requests.Session() as session:
        options: dict[str, Any] = {where: fail}
        if where == "session":
            session.hooks["response"].append(fail)
            options = {"session": session}
        elif where == "adapter":
            adapter = OwnAdapter()
            adapter.send = fail  # type: ignore[method-assign]
            session.mount("http://", adapter)
            options = {"session": session}
        client = follow(bodies(*["data: x\n\n"] * 9), max_attempts=3, **options)
        with pytest.raises(requests.HTTPError):
            client.run()
    assert len(calls) == (1 if status == 401 else 3)


def test_a_response_refused_by_a_session_hook_is_closed(follow: Callable[..., Client]) -> None:
    with requests.Session() as session:
        session.hooks["response"].append(raises(401))
        client = follow(held(STREAM), session=session)
        with pytest.raises(requests.HTTPError):
            client.run()
        until(lambda: not client.server._open)  # type: ignore[attr-defined]


def test_retry_after_of_an_http_error_from_a_function_is_respected(follow: Callable[..., Client]) -> None:
    answer = requests.Response()
    answer.status_code, answer.headers["Retry-After"] = 503, "500"
    client = follow(bodies(), headers=answer.raise_for_status)
    troubles = Troubles(client)
    client.on_error(lambda error, delay: client.stop())
    client.run()
    assert troubles.delays[0] is not None and troubles.delays[0] >= 500


def test_an_http_error_without_a_response_is_final(follow: Callable[..., Client]) -> None:
    def fail(response: requests.Response) -> None:
        raise requests.HTTPError("not this one")

    with pytest.raises(requests.HTTPError, match="not this one"):
        follow(bodies(*["data: x\n\n"] * 3), response_callback=fail).run()


def test_a_stream_with_retry_0_that_ends_at_once_gets_few_connections(follow: Callable[..., Client]) -> None:
    client = follow(lambda exchange: exchange.send(STREAM + b"retry: 0\ndata: x\n\n"), backoff=Backoff())
    started = time.monotonic()
    for n, _ in enumerate(client):
        if n == 2:
            break
    assert time.monotonic() - started > 0.9


# Usage


def test_a_client_is_followed_once_at_a_time_and_started_once(follow: Callable[..., Client]) -> None:
    client = follow(held(STREAM + b"data: x\n\n"))
    loop = iter(client)
    assert next(loop).data == "x"
    for again in (client.run, lambda: next(iter(client))):
        with pytest.raises(RuntimeError, match="already"):
            again()
    assert client.stop() is False
    assert list(loop) == [] and client.stop()
    other = follow(bodies())
    assert other.start() is other
    with pytest.raises(RuntimeError, match="before"):
        other.start()


def test_a_failure_of_a_started_client_is_kept_and_logged(
    follow: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = follow(bodies(REFUSED % 404))
    exits = threading.Event()
    client.on_exit(exits.set)
    client.start()
    assert exits.wait(GUARD) and client.stop(GUARD)
    assert isinstance(client.error, StreamRefused) and "404" in caplog.text


@pytest.mark.parametrize(
    "url", ["ftp://example.not/", "about:blank", "mailto:a@b", "http://this is invalid/", "nothing", "", "http://[::1/"]
)
def test_an_invalid_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError):
        Client(url)
    client = Client(lambda: url)
    with pytest.raises(ValueError):
        client.run()
    assert isinstance(client.error, requests.RequestException)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"url": None}, TypeError),
        ({"method": ""}, ValueError),
        ({"headers": "x"}, TypeError),
        ({"headers": {"last-event-ID": "1"}}, ValueError),
        ({"body": iter([b"x"])}, TypeError),
        ({"body": b"x", "json": 1}, ValueError),
        ({"last_event_id": None}, TypeError),
        ({"last_event_id": "a\nb"}, ValueError),
        ({"reconnect_delay": -1}, ValueError),
        ({"reconnect_delay": float("nan")}, ValueError),
        ({"backoff": 3}, TypeError),
        ({"timeout": 3}, TypeError),
        ({"timeout": (1, 2)}, TypeError),
        ({"timeout": (0, 1, 1)}, ValueError),
        ({"retry_status": "503"}, TypeError),
        ({"max_attempts": 0}, ValueError),
        ({"max_elapsed": 0}, ValueError),
        ({"max_event_size": 0}, ValueError),
        ({"response_callback": 1}, TypeError),
    ],
)
def test_a_wrong_argument_is_refused_immediately(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Client(**{"url": "http://127.0.0.1/", **options})


def test_hooks_refuse_invalid_types_and_callbacks() -> None:
    client = Client("http://127.0.0.1/")
    for call, error in (
        (lambda: client.on_event(""), ValueError),
        (lambda: client.on_event(5), TypeError),  # type: ignore[call-overload]
        (lambda: client.on_event("x", 5), TypeError),  # type: ignore[call-overload]
        (lambda: client.on_connection(None), TypeError),  # type: ignore[type-var]
        (lambda: client.subscribe(""), ValueError),
        (lambda: client.subscribe(size=0), ValueError),
    ):
        with pytest.raises(error):
            call()


# Further cases


def test_a_gap_that_is_nested_too_deeply_does_not_end_the_client(follow: Callable[..., Client]) -> None:
    client = follow(bodies("event: ssehub.gap\ndata: " + "[" * 100_000 + "\n\ndata: x\n\n"))
    gaps: list[object] = []
    client.on_gap(lambda *gap: gaps.append(gap))
    assert data(client) == ["x"] and gaps == [("unknown", None)]


BAD_PLACES = [b"http://[::", b"\xff\xfe", b"file:///x", b"ftp://host/", b"http://host:99999/",
              b"http://host:x/", b"http://" + b"a" * 70 + b".host/"]  # fmt: skip


def moved(location: bytes) -> bytes:
    return b"HTTP/1.1 302 Go\r\nLocation: " + location + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("location", BAD_PLACES)
def test_a_redirect_to_an_address_that_cannot_work_is_tried_again(
    follow: Callable[..., Client], location: bytes
) -> None:
    client = follow(bodies(moved(location), "data: x\n\n"))
    troubles = Troubles(client)
    with warnings.catch_warnings():
        # With requests, only the garbage collector closes such a response.
        warnings.simplefilter("ignore", ResourceWarning)
        assert data(client) == ["x"]
        assert all(isinstance(error, requests.ConnectionError) for error, _ in troubles)
        assert "a redirect leads to an address that cannot work" in str(troubles[0][0])
        troubles.clear()
        gc.collect()


@pytest.mark.parametrize("location", BAD_PLACES)
def test_a_redirect_that_is_not_followed_may_lead_anywhere(follow: Callable[..., Client], location: bytes) -> None:
    client = follow(bodies(moved(location)), allow_redirects=False)
    with pytest.raises(StreamRefused, match=r"302 Go .* it is at ") as caught:
        client.run()
    assert caught.value.response.text == ""


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://host:99999/", "http://host:x/", "http://" + "a" * 70 + ".host/"]
)
def test_an_address_that_can_never_work_is_a_final_error(url: str) -> None:
    for make in (lambda: Client(url, max_attempts=1), lambda: Client(lambda: url, max_attempts=1)):
        with pytest.raises(requests.exceptions.InvalidURL, match="address"):
            make().run()


@pytest.mark.parametrize("place", ["auth", "basic", "session", "session header", "url", "digest"])
def test_a_name_that_fits_no_header_is_a_final_error_about_the_request(scripted: Serve, place: str) -> None:
    challenge = b'HTTP/1.1 401 No\r\nContent-Length: 0\r\nWWW-Authenticate: Digest realm="x", nonce="y"\r\n\r\n'
    url, options = scripted(bodies(challenge)).url, {}
    with requests.Session() as session:
        if place == "session":
            session.auth = ("user", "geheim\u1234")
        elif place == "session header":
            session.headers["X"] = "geheim\u1234"
        elif place == "url":
            url = url.replace("//", "//user:geheim\u1234@")
        else:
            kinds = {"basic": requests.auth.HTTPBasicAuth, "digest": requests.auth.HTTPDigestAuth}
            options["auth"] = kinds.get(place, lambda *both: both)("geheim\u1234", "geheim")
        with pytest.raises(ValueError, match=r"auth.*latin-1") as caught:
            Client(url, session=session, max_attempts=1, **options).run()
    assert "understood" not in str(caught.value) and SECRET not in str(caught.value)


def test_the_text_of_an_error_has_no_control_characters(follow: Callable[..., Client]) -> None:
    place = b"http://127.0.0.1:x/\x1b[31m"
    texts: list[str] = []
    for options in ({}, {"allow_redirects": False}):
        client = follow(bodies(moved(place)), max_attempts=1, **options)
        with pytest.raises(requests.RequestException) as caught:
            client.run()
        texts.append(str(caught.value))
    with pytest.raises(requests.RequestException) as caught:
        publish(follow(bodies(moved(place))).server.url, {})  # type: ignore[attr-defined]
    assert all("x/\\u001b[31m" in text for text in (*texts, str(caught.value)))
    for answer in (b"500 \x1b[31m\r\nContent-Length: 0\r\n\r\n",
                   b'400 No\r\nContent-Length: 23\r\n\r\n{"error": "\\u001b[31m"}'):  # fmt: skip
        with pytest.raises(requests.HTTPError) as caught:
            publish(follow(bodies(b"HTTP/1.1 " + answer)).server.url, {})  # type: ignore[attr-defined]
        assert "\\u001b[31m" in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("headers", "error"), [({"X": "\u65e5"}, ValueError), ({"X": 5}, TypeError), ({5: "x"}, TypeError)]
)
def test_an_invalid_header_is_refused_with_its_name(headers: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"X|5"):
        Client("http://127.0.0.1/", headers=headers)


def test_a_body_that_ends_too_early_is_an_error(follow: Callable[..., Client]) -> None:
    client = follow(bodies(STREAM[:-2] + b"Content-Length: 100\r\n\r\ndata: a\n\n"))
    ends: list[Exception | None] = []
    client.on_disconnect(ends.append)
    assert data(client) == ["a"] and isinstance(ends[0], requests.ConnectionError)


@pytest.mark.parametrize("encoding", ["none", "utf-8", "rot13", "identity", "", "None, UTF-8", "text/event-stream"])
def test_an_unknown_encoding_is_ignored(follow: Callable[..., Client], encoding: str) -> None:
    head = STREAM[:-2] + f"Content-Encoding: {encoding}\r\n\r\n".encode()
    assert data(follow(bodies(head + b"data: x\n\n"))) == ["x"]


@pytest.mark.parametrize("encoding", ["gzip, none", "utf-8,gzip"])
def test_an_unknown_encoding_next_to_a_known_one_is_ignored(follow: Callable[..., Client], encoding: str) -> None:
    head = STREAM[:-2] + f"Content-Encoding: {encoding}\r\n\r\n".encode()
    assert data(follow(bodies(head + gzip.compress(b"data: x\n\n")))) == ["x"]


def test_an_encoding_that_needs_a_package_is_refused_by_name(
    follow: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssehub.client.body._DECODED", ("gzip", "deflate"))
    for encoding, package in (("br", "brotli"), ("gzip, zstd", "zstandard")):
        client = follow(bodies(STREAM[:-2] + f"Content-Encoding: {encoding}\r\n\r\n...".encode()))
        opened: list[int] = []
        client.on_connection(lambda opened=opened: opened.append(1))
        with pytest.raises(StreamRefused, match=package):
            client.run()
        assert len(requests_of(client)) == 1 and opened == []


def test_a_value_that_json_cannot_represent_is_final(follow: Callable[..., Client]) -> None:
    client = follow(bodies("data: x\n\n"), method="POST", json=float("nan"))
    with pytest.raises(requests.exceptions.InvalidJSONError):
        client.run()


def test_start_followed_by_run_is_an_error(follow: Callable[..., Client]) -> None:
    for _ in range(50):
        client = follow(lambda exchange: exchange.hold())
        client.start()
        with pytest.raises(RuntimeError, match="already"):
            client.run()
        assert client.stop(GUARD)


def test_the_exit_hook_is_called_once(follow: Callable[..., Client]) -> None:
    client = follow(bodies("data: x\n\n"))
    exits: list[int] = []
    client.on_exit(lambda: exits.append(1))
    for _ in range(3):
        client.run()
    assert exits == [1] and "over" in repr(client)


def test_a_client_shows_no_secrets(follow: Callable[..., Client], caplog: pytest.LogCaptureFixture) -> None:
    client = follow(bodies(REFUSED % 404), path="/p?token=geheim")
    with pytest.raises(StreamRefused) as caught:
        client.run()
    assert "geheim" not in f"{caught.value}{client!r}{caplog.text}" and "/p" in repr(client)


SECRET = "geheim"


def shown_by(error: BaseException, caplog: pytest.LogCaptureFixture) -> str:
    """Return everything that a program may print about an error: text, traceback and log."""
    return "".join([str(error), repr(error), *traceback.format_exception(error), caplog.text])


@pytest.mark.parametrize("how", ["refused", "timeout", "cut", "tls", "name", "redirect", "proxy"])
def test_an_error_of_the_connection_shows_no_secrets(
    scripted: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    if how == "proxy":
        monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:{free_port()}")
    away = f"http://me:{SECRET}@127.0.0.1:{free_port()}/?token={SECRET}"
    script: dict[str, Callable[[Exchange], object]] = {
        "timeout": held(),
        "cut": lambda exchange: None,
        "redirect": lambda exchange: exchange.send(f"HTTP/1.1 302 Go\r\nLocation: {away}\r\n\r\n".encode()),
    }
    host = {"refused": f"127.0.0.1:{free_port()}", "name": "nobody.invalid", "proxy": "127.0.0.1"}.get(how)
    host = host or f"127.0.0.1:{scripted(script.get(how, held()), tls=how == 'tls').port}"
    url = f"http{'s' * (how == 'tls')}://me:{SECRET}@{host}/p?token={SECRET}"
    client = Client(url, max_attempts=1, timeout=Timeout(headers=0.1))
    client.on_error(lambda error, delay: caplog.records or print(error))
    client.start()
    until(lambda: client.error)
    assert isinstance(client.error, requests.RequestException)
    assert SECRET not in shown_by(client.error, caplog) and SECRET not in reason(client.error)
    assert len(str(client.error)) > 10


@pytest.mark.parametrize(
    "url",
    [
        "http://me:geheim@host name/",
        "http://me:geheim@[::1/",
        "http://me:ge/heim@host/geheim",
        "http://me:geheim/x@host/",
        "http://me:geheim@host:port/",
        "ftp://me:geheim@host/?token=geheim",
        "me:geheim@host/",
        "host?token=geheim",
        "http://me:geheim@",
        "http://me:geheim@ho\u2100st/",
        "http://me:geheim@*.host/",
    ],
)
def test_an_invalid_url_is_refused_without_showing_secrets(url: str, caplog: pytest.LogCaptureFixture) -> None:
    for make in (lambda: Client(url), lambda: Client(lambda: url)):
        with pytest.raises((ValueError, requests.RequestException)) as caught:
            make().run()
        assert SECRET not in shown_by(caught.value, caplog)


@pytest.mark.parametrize("proxy", ["http://me:geheim/x@host:1", "http://me:geheim@host:port", "me:geheim/@host"])
def test_a_proxys_address_that_is_none_is_refused_without_its_secrets(
    proxy: str, caplog: pytest.LogCaptureFixture
) -> None:
    with requests.Session() as session:
        session.proxies = {"http": proxy}
        for use in (Client("http://host.invalid/", session=session, max_attempts=1).run,
                    lambda: publish("http://host.invalid/send", {}, session=session)):  # fmt: skip
            with pytest.raises(requests.exceptions.InvalidURL, match=r"parsed|malformed") as caught:
                use()
            assert SECRET not in shown_by(caught.value, caplog)


@pytest.mark.parametrize("id", ["geheim\n", "geheim\0", "geheim\ud800"])
def test_a_last_event_id_that_is_refused_is_not_shown(id: str, caplog: pytest.LogCaptureFixture) -> None:
    for use in (lambda: Client("http://127.0.0.1/", last_event_id=id), lambda: Client("http://127.0.0.1/").restart(id)):
        with pytest.raises(ValueError, match="last_event_id") as caught:
            use()
        assert SECRET not in shown_by(caught.value, caplog)


@pytest.mark.parametrize("value", ["Bearer geheim\n", " geheim", b"geheim\r\n", ["geheim"], "geheim\u2603"])
def test_the_value_of_a_refused_header_is_not_shown(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    for make in (lambda: Client("http://127.0.0.1/", headers={"Auth": value}),):
        with pytest.raises((ValueError, TypeError), match="Auth") as caught:
            make().run()
        assert SECRET not in shown_by(caught.value, caplog)
    with requests.Session() as session:
        session.headers["Auth"] = "geheim\n"
        with pytest.raises(requests.exceptions.InvalidHeader) as invalid:
            Client("http://127.0.0.1/", session=session).run()
        assert SECRET not in shown_by(invalid.value, caplog)
