"""How a client reports its state: in the log, in its repr, as a User-Agent."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

import ssehub
from ssehub import Client, StreamRefused, SubscriptionClosed
from ssehub.client import reason
from tests.scripted import QUICK, REFUSED, STREAM, Exchange, Server, bodies, held
from tests.streams import GUARD, until

Follow = Callable[..., Client]
Serve = Callable[..., Server]


def run(client: Client) -> None:
    for _ in client:
        pass


# The log


def test_an_outage_causes_two_log_messages(follow: Follow, caplog: pytest.LogCaptureFixture) -> None:
    no = REFUSED % 503
    run(follow(bodies("data: x\n\n", no, no, no, "data: y\n\n", "data: z\n\n"), path="/p?token=geheim"))
    down, up = (record.getMessage() for record in caplog.records)
    assert "503" in down and "next attempt" in down and "/p: " in down and "connected again" in up
    assert {record.levelno for record in caplog.records} == {logging.WARNING} and "geheim" not in caplog.text


def test_a_long_outage_is_logged_periodically(
    follow: Follow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssehub.client.report._RARELY", 0.0)
    run(follow(bodies(*[REFUSED % 503] * 3)))
    assert ["times in a row" in record.getMessage() for record in caplog.records] == [False, True, True]


def test_a_server_that_accepts_and_closes_does_not_fill_the_log(
    follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    run(follow(bodies(*[": nothing\n\n"] * 20)))
    assert len(caplog.records) == 2


# The repr


def test_the_repr_shows_the_state(follow: Follow) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.number == 2:
            exchange.send(b"HTTP/1.1 503 No\r\nRetry-After: 999\r\n\r\n")
            return
        assert step.wait(GUARD)
        exchange.send(STREAM + b"data: x\n\n")
        assert end.wait(GUARD)

    step, end = threading.Event(), threading.Event()
    client = follow(script)
    assert "not followed" in repr(client)
    client.start()
    until(lambda: "connecting" in repr(client))
    step.set()
    until(lambda: "connected" in repr(client))
    end.set()
    until(lambda: "waiting" in repr(client) and "503" in repr(client))
    client.stop(GUARD)
    assert "over" in repr(client)
    failed = follow(bodies(REFUSED % 404))
    with pytest.raises(StreamRefused):
        failed.run()
    assert "over" in repr(failed) and "404" in repr(failed)


# The User-Agent


def test_the_user_agent_can_be_replaced(follow: Follow) -> None:
    with requests.Session() as session:
        session.headers["User-Agent"] = "mine"
        options: list[dict[str, Any]] = [{}, {"headers": {"user-agent": "given"}}, {"session": session}]
        names = []
        for one in options:
            client = follow(bodies(), **one)
            client.run()
            names.append(client.server.requests[0].headers["user-agent"])  # type: ignore[attr-defined]
    assert names[0].startswith(f"ssehub/{ssehub.__version__} ") and names[1:] == ["given", "mine"]


# Certificates


def test_an_untrusted_certificate_is_final(scripted: Serve) -> None:
    server = scripted(held(), tls=True)
    with pytest.raises(requests.exceptions.SSLError, match="self-signed"):
        Client(server.url, backoff=QUICK, reconnect_delay=0).run()
    assert server.accepted == 1


@pytest.mark.parametrize(("code", "calls"), [(9, 3), (10, 3), (18, 1), (20, 1), (62, 1)])
def test_a_certificate_may_become_valid_with_time_but_not_for_another_host(code: int, calls: int) -> None:
    class Refusing(HTTPAdapter):
        def send(self, *args: Any, **kwargs: Any) -> requests.Response:
            sent.append(1)
            error = ssl.SSLCertVerificationError("no")
            error.verify_code = code
            below = urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.SSLError(error))  # type: ignore[arg-type]
            raise requests.exceptions.SSLError(below)

    sent: list[int] = []
    with requests.Session() as session:
        session.mount("https://", Refusing())
        client = Client("https://host/", session=session, max_attempts=3, backoff=QUICK, reconnect_delay=0)
        with pytest.raises(requests.exceptions.SSLError):
            client.run()
    assert len(sent) == calls


@pytest.mark.parametrize(
    ("below", "expected"),
    [
        ("HTTPConnection(host='x', port=1): Failed to establish a new connection: [Errno 111] Connection refused",
         "[Errno 111] Connection refused"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1006)",
         "self-signed certificate (_ssl.c:1006)"),
        ("[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure (_ssl.c:1006)",
         "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure (_ssl.c:1006)"),
    ],
)  # fmt: skip
def test_a_reason_is_the_last_part_of_the_text_of_urllib3(below: str, expected: str) -> None:
    error = urllib3.exceptions.MaxRetryError(None, "/?token=geheim", urllib3.exceptions.SSLError(below))  # type: ignore[arg-type]
    assert reason(requests.ConnectionError(error)) == f"the server: {expected}"
    assert reason(ValueError("no")) == "no"


# The thread


@pytest.mark.parametrize("hook", ["on_connection", "on_event", "on_error", "on_disconnect", "on_exit"])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError])
def test_an_error_in_the_thread_is_logged_and_ends_all_waits(
    follow: Follow, caplog: pytest.LogCaptureFixture, hook: str, error: type[BaseException]
) -> None:
    def fail(*args: object) -> None:
        raise error

    client = follow(bodies(REFUSED % 503, "data: x\n\n"))
    getattr(client, hook)(fail)
    subscription = client.subscribe("never")
    client.start()
    with pytest.raises(SubscriptionClosed):
        subscription.get(GUARD)
    assert client.stop(GUARD) and error.__name__ in caplog.text


def test_an_unusable_session_is_a_final_failure_and_ends_all_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(requests.Session):
        def __init_subclass__(cls) -> None:
            raise LookupError("no subclass of mine")

    client = Client("http://127.0.0.1/", session=Broken())
    client.start()
    assert client.stop(GUARD) and isinstance(client.error, LookupError) and "no subclass" in caplog.text


def test_a_thread_that_cannot_be_started_does_not_end_the_client(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    client = follow(bodies("data: x\n\n"))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start"):
            client.start()
    got = client.subscribe()
    client.start()
    assert got.get(GUARD).data == "x"
