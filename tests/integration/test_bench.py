"""``ssehub bench`` against real servers: what it says is there is there, and what is wrong it finds."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wrappers import Response

from ssehub import Hub
from ssehub.cli import main
from ssehub.service import create_app
from tests.scripted import CERTIFICATE, REFUSED, STREAM, Exchange, Server, bodies
from tests.servers import ROOT, free_port, gunicorn, process, running
from tests.streams import GUARD, Stream, call, until

QUICK = ("--rate", "100", "--duration", "0.3", "--patience", "5")


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """Give the address of a hub on gunicorn."""
    with running("gthread", threads=130) as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def bench(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = (sys.executable, "-m", "ssehub", "bench", *arguments)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def said(*arguments: str) -> tuple[int, str, str]:
    """Run it here to its end, and return its exit code, its output and its errors."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main(("bench", *arguments))
    return code, output.getvalue(), errors.getvalue()


def figures(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Run it here to its end, and return its exit code and what it has found."""
    code, output, _ = said(*arguments, "--json")
    return code, json.loads(output or "{}")


def test_a_hub_that_is_right_is_told_to_be(hub: str) -> None:
    code, found = figures(f"{hub}/events", "--streams", "100", *QUICK)
    assert code == 0, found
    assert (found["open_at_start"], found["open_at_end"], found["offered"]) == (100, 100, 30)
    assert found["received"] == 100 * found["accepted"] > 0  # a machine that is busy takes fewer than are offered
    assert found["lost"] == found["doubled"] == found["out_of_order"] == found["gaps"] == found["others"] == 0
    for ranks in (found["connect"], found["first_byte"], found["latency"]):
        assert 0 < ranks["p50"] <= ranks["p90"] <= ranks["p99"] <= ranks["max"]
    assert found["load"] > 0 and "p99" in found["lag"]
    assert found["served"]["parked"] >= 100 and found["served"]["on_threads"] == 0, "gthread has a thread for each"


def test_the_table_shows_all_that_one_asks_for(hub: str) -> None:
    code, table, errors = said(f"{hub}/events", "--zone", "a zone", "--streams", "5", *QUICK)
    assert (code, errors) == (0, "")
    shown = dict(line.strip().split("  ", 1) for line in table.splitlines()[1:])
    assert shown["messages"].strip().startswith("30 accepted of 30 offered")
    for name in ("lost", "doubled", "out of order", "gaps told"):
        assert shown[name].strip() == "0"
    assert {"streams", "connect", "first byte", "latency", "deliveries", "reconnects", "generator"} <= set(shown)


def test_the_report_says_how_the_streams_are_served(
    detach: bool | None, make_hub: Callable[..., Hub], site: Callable[[Any], Any]
) -> None:
    served = {True: "5 detached", None: "5 parked", False: "5 on the server's threads"}[detach]
    here = site(create_app(make_hub(), public=False))
    code, table, _ = said(f"http://127.0.0.1:{here.port}/events", "--streams", "5", *QUICK)
    assert code == 0 and f"served        5 open: {served}\n" in table and "since the start" not in table


def test_the_report_says_why_streams_are_on_threads(
    make_hub: Callable[..., Hub], site: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSEHUB_TOKEN", "secret")
    service = create_app(make_hub(detach=None), token="secret")

    def hidden(environ: dict[str, Any], start: Any) -> Any:
        del environ["werkzeug.socket"]
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        return service(environ, start)

    here = site(DispatcherMiddleware(Response("nothing", 404), {"/sse": hidden}))
    code, table, _ = said(f"http://127.0.0.1:{here.port}/sse/events", "--streams", "5", *QUICK)
    assert code == 0 and "5 open: 5 on the server's threads\n" in table
    assert "on threads    5 times since the start: the server does not show the client's socket\n" in table


def test_the_documented_commands_measure_a_service_that_is_mounted(
    site: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSEHUB_TOKEN", "secret")
    docs = ROOT / "docs"
    (code,) = re.findall(
        r"^\.\. code-block:: python\n\n((?:(?:   .*)?\n)+)", (docs / "doctor.rst").read_text(), re.MULTILINE
    )
    scope: dict[str, Any] = {"__name__": "app"}
    exec(textwrap.dedent(code), scope)

    @scope["app"].get("/events")
    def events() -> Any:
        return scope["hub"].connect(request, zone="news")

    here = site(scope["app"])
    commands = re.findall(
        r"^    ssehub bench (https://app\.example.*)$", (docs / "bench.rst").read_text(), re.MULTILINE
    )
    assert len(commands) == 2 and commands[0] in (docs / "doctor.rst").read_text()
    for command in commands:
        words = command.replace("https://app.example", f"http://127.0.0.1:{here.port}").replace(
            '"$SSEHUB_TOKEN"', "secret"
        )
        code, found = figures(*words.split(), "--streams", "3", *QUICK)
        assert code == 0 and found["accepted"] == found["offered"] > 0, found
    scope["hub"].close()


def test_a_service_that_does_not_tell_how_it_serves_is_measured_all_the_same(scripted: Callable[..., Server]) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(STREAM + b": there\n\n")
        exchange.hold()

    code, found = figures(scripted(script).url + "/events", "--watch", "--streams", "2", "--duration", "0.1")
    assert code == 0 and found["served"] == {}


@pytest.mark.parametrize(("fault", "found"), [("lose", "lost"), ("double", "doubled"), ("reorder", "out_of_order")])
def test_what_a_service_does_wrong_is_found(fault: str, found: str) -> None:
    port = free_port()
    command = (*gunicorn("gthread", port)[:-1], "tests.apps.faulty:app")
    with process(*command, FAULT=fault):
        until(lambda: _listens(port))
        code, told = figures(
            f"http://127.0.0.1:{port}/events",
            "--streams",
            "4",
            "--rate",
            "40",
            "--duration",
            "0.5",
            "--patience",
            "2",
        )
    assert code == 1
    wrong = {name: told[name] for name in ("lost", "doubled", "out_of_order")}
    # One message of five, on two streams of four. Only a sender's own messages have an order, and on a busy machine
    # one of two that were exchanged may be another's.
    assert wrong[found] == 8 or (fault == "reorder" and 0 < wrong[found] < 8), told
    assert sum(wrong.values()) == wrong[found]
    assert told["faults"]


def _listens(port: int) -> bool:
    try:
        return call(port, "POST", "/send", '{"data": "x"}', **{"Content-Type": "application/json"})[0] == 200
    except OSError:
        return False


def test_a_server_that_dies_midway_is_reported() -> None:
    port = free_port()
    with process(*gunicorn("gthread", port)) as server:
        until(lambda: _listens_to_all(port))
        arguments = ("--streams", "10", "--rate", "50", "--duration", "3", "--patience", "5", "--json")
        with bench(f"http://127.0.0.1:{port}/events", *arguments) as started:
            until(lambda: call(port, "GET", "/stats")[1]["stats"]["delivered"] > 50)
            os.killpg(server.pid, signal.SIGKILL)
            output, errors = started.communicate(timeout=6 * GUARD)
    told = json.loads(output)
    assert started.returncode == 1 and "Traceback" not in errors
    assert told["open_at_end"] == 0 and sum(told["ends"].values()) == 10
    assert told["send_errors"] and told["accepted"] < told["offered"]


def _listens_to_all(port: int) -> bool:
    try:
        return call(port, "GET", "/health")[0] == 200
    except OSError:
        return False


def test_what_cannot_be_measured_is_said_in_one_line(hub: str, scripted: Callable[..., Server]) -> None:
    away = f"http://127.0.0.1:{free_port()}/events"
    html = scripted(bodies(*[b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"] * 4))
    closed = scripted(bodies(*[REFUSED % 401] * 4))
    strange = scripted(bodies(*[b"SSH-2.0-OpenSSH\r\n"] * 4))
    for arguments, text in (
        ((f"{hub}/nothing",), "404"),
        ((f"{hub}/events?zone=",), "400"),
        ((f"{closed.url}/events", "--watch"), "401"),
        ((f"{html.url}/events", "--watch"), "not an event stream but text/html"),
        ((f"{strange.url}/events", "--watch"), "not HTTP"),
        ((away,), "refused"),
        (("ftp://127.0.0.1/",), "not an http URL"),
        (("events",), "not an http URL"),
        ((f"{hub}/events", "--streams", "0"), "streams must be"),
        ((f"{hub}/events", "--rate", "nan"), "rate must be"),
        ((f"{hub}/events", "--streams", "2", "--send-url", f"{hub}/nothing"), "404"),
        ((f"{hub}/events", "--header", "X: a\nb"), "not a header"),
    ):
        code, output, errors = said(*arguments)
        assert (code, output) == (1, ""), arguments
        assert text in errors and len(errors.splitlines()) == 1, (arguments, errors)


def test_without_permission_to_send_it_says_so_and_with_the_token_it_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    port = str(free_port())
    with process(sys.executable, "-m", "ssehub", "serve", "--port", port, "--token", "secret"):
        until(lambda: _listens_to_all(int(port)))
        url = f"http://127.0.0.1:{port}/events"
        code, _, errors = said(url, "--streams", "2", *QUICK)
        assert code == 1 and "401" in errors and "token" in errors
        monkeypatch.setenv("SSEHUB_TOKEN", "secret")
        code, found = figures(url, "--streams", "2", *QUICK)
        assert code == 0 and found["received"] == 2 * found["accepted"] > 0


def test_too_few_open_files_are_told(hub: str) -> None:
    command = f"ulimit -n 100; exec {sys.executable} -m ssehub bench {hub}/events --streams 200"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and "open files are needed and 100 are allowed" in done.stderr


def test_it_watches_what_others_send(hub: str) -> None:
    arguments = ("--streams", "5", "--watch", "--duration", "1", "--json")
    with bench(f"{hub}/events?zone=watched", *arguments) as started:
        until(lambda: len(call(int(hub.rpartition(":")[2]), "GET", "/stats")[1]["zones"].get("watched", ())) == 5)
        until(lambda: _sent_some(hub, started))
        found = json.loads(started.communicate(timeout=6 * GUARD)[0])
    assert started.returncode == 0, found
    assert found["watched"] and found["accepted"] > 0 and found["received"] == 5 * found["accepted"]
    assert found["lost"] == found["out_of_order"] == 0 and found["latency"]["max"] > 0


def _sent_some(hub: str, started: subprocess.Popen[str]) -> bool:
    port = int(hub.rpartition(":")[2])
    for n in range(10):
        call(port, "POST", "/send", {"data": str(n), "zone": "watched"})
    return call(port, "GET", "/stats")[1]["stats"]["delivered"] >= 50


def test_watching_finds_what_one_stream_has_not_got(scripted: Callable[..., Server]) -> None:
    def script(exchange: Exchange) -> None:
        kept = [n for n in range(1, 8) if exchange.number == 1 or n not in (3, 4)]
        ids = [*kept[:-2], kept[-1], kept[-2]] if exchange.number == 3 else kept
        events = "".join(f"id: abc.{n}.{n:08x}\ndata: {n}\n\n" for n in ids)
        exchange.send(STREAM + f"event: ssehub.open\nid: abc.0.00000000\ndata: x\n\n{events}".encode())
        exchange.hold()

    code, found = figures(
        scripted(script).url, "--watch", "--streams", "3", "--duration", "0.2", "--header", "X-Key: 1"
    )
    assert code == 1 and found["accepted"] == 7
    # Two and two that never came, and one that the third stream got after a later one.
    assert (found["lost"], found["out_of_order"]) == (5, 1)


def test_tls_is_measured_as_well(scripted: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(STREAM + b": there\n\n")
        exchange.hold()

    url = scripted(script, tls=True).url
    options = ("--watch", "--streams", "10", "--duration", "0.1")
    code, _, errors = said(url, *options)
    assert code == 1 and "certificate" in errors.lower()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    code, found = figures(url, *options)
    assert (code, found["open_at_end"]) == (0, 10)


def test_ctrl_c_prints_what_is_known(hub: str) -> None:
    port = int(hub.rpartition(":")[2])
    before = call(port, "GET", "/stats")[1]["stats"]["delivered"]
    with bench(f"{hub}/events", "--streams", "5", "--rate", "50", "--duration", "3600") as started:
        until(lambda: call(port, "GET", "/stats")[1]["stats"]["delivered"] > before + 20)
        started.send_signal(signal.SIGINT)
        table, errors = started.communicate(timeout=6 * GUARD)
    assert started.returncode == 130 and "Traceback" not in errors
    assert "interrupted" in table and "lost          0\n" in table


def test_nobody_else_gets_its_messages(hub: str) -> None:
    port = int(hub.rpartition(":")[2])
    other = Stream(port, "/events?zone=default&zone=private")
    other.opened()
    code, found = figures(f"{hub}/events", "--streams", "2", *QUICK)
    assert code == 0 and found["received"] > 0
    call(port, "POST", "/send", {"data": "for all", "broadcast": "true"})
    assert other.message().data == "for all"
    zoned = Stream(port, "/events?zone=shared")
    zoned.opened()
    assert figures(f"{hub}/events", "--streams", "1", "--zone", "shared", *QUICK)[0] == 0
    assert zoned.message().event == "ssehub-bench", "no page listens to that"
    other.close()
    zoned.close()


def test_where_nothing_can_be_sent_it_says_what_is_needed(
    make_hub: Callable[..., Hub], site: Callable[[Any], Any]
) -> None:
    own = make_hub()
    here = site(lambda environ, start: own.connect(environ, zone="news")(environ, start))
    address = f"http://127.0.0.1:{here.port}/events"
    code, _, errors = said(address, "--streams", "1", "--send-url", "http://127.0.0.1:1/send", *QUICK)
    assert code == 1 and "127.0.0.1:1" in errors
    code, _, errors = said(f"{address}?zone=a", "--zone", "b", *QUICK)
    assert code == 1 and "different zones" in errors
    code, _, errors = said(f"127.0.0.1:{here.port}/events", *QUICK)
    assert code == 1 and "perhaps it is http://" in errors


def test_headers_of_the_stream_go_to_no_other_host(
    scripted: Callable[..., Server], make_hub: Callable[..., Hub], site: Callable[[Any], Any]
) -> None:
    here = site(create_app(make_hub()))
    url = f"http://127.0.0.1:{here.port}"
    other = scripted(bodies(REFUSED % 404, REFUSED % 404))
    secret = ("--streams", "1", *QUICK, "--header", "Cookie: session=secret", "--token", "token")
    assert said(f"{url}/events", "--send-url", other.url + "/send", *secret)[0] == 1
    assert other.requests[0].headers["authorization"] == "Bearer token"
    assert "cookie" not in other.requests[0].headers
    watching = scripted(lambda exchange: exchange.send(REFUSED % 404))
    stats = ("--watch", "--duration", "0.1", "--stats-url", watching.url)
    assert said(f"{url}/events", "--streams", "1", "--header", "Cookie: session=secret", *stats)[0] == 0
    assert "cookie" not in watching.requests[0].headers
    own = scripted(bodies(STREAM + b": there\n\n", *[REFUSED % 404] * 3))
    said(own.url + "/events", *secret)
    assert [exchange.headers["cookie"] for exchange in own.requests[:2]] == ["session=secret"] * 2


def test_nothing_that_a_server_says_is_a_command_for_the_terminal(
    scripted: Callable[..., Server], make_hub: Callable[..., Hub], site: Callable[[Any], Any]
) -> None:
    here = site(create_app(make_hub()))
    error = json.dumps({"error": "\x1b]52;c;eA==\x07 \x9b31m \u202egpj"}).encode()
    no = b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n%s" % (len(error), error)
    hostile = scripted(lambda exchange: exchange.send(no)).url
    refused = scripted(
        lambda exchange: exchange.send(b"HTTP/1.1 500 \x1b[31m \x9b31m\r\nContent-Length: 0\r\n\r\n")
    ).url
    for arguments in ((f"http://127.0.0.1:{here.port}/events", "--send-url", hostile), (refused,)):
        for more in ((), ("--json",)):
            code, output, errors = said(*arguments, "--streams", "1", *QUICK, *more)
            assert code == 1 and not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", output + errors)
            assert "u001b" in output + errors


@pytest.mark.parametrize("piece", [b"[", b"1" * 65536])
def test_an_answer_to_a_message_may_be_anything(
    scripted: Callable[..., Server], make_hub: Callable[..., Hub], site: Callable[[Any], Any], piece: bytes
) -> None:
    here = site(create_app(make_hub()))

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 500 No\r\n\r\n")
        for _ in range(1000):
            exchange.send(piece * (100 if piece == b"[" else 1))

    url = f"http://127.0.0.1:{here.port}/events"
    code, found = figures(url, "--send-url", scripted(script).url, "--streams", "1", *QUICK)
    expected = "500 No" if piece == b"[" else "500 with a response that does not end"
    assert code == 1 and expected in found["send_errors"]


def test_streams_that_follow_another_zone_are_a_hint_in_the_table(
    make_hub: Callable[..., Hub], site: Callable[[Any], Any]
) -> None:
    own = make_hub()
    service = create_app(own, public=False)

    def app(environ: dict[str, Any], start: Any) -> Any:
        if environ["PATH_INFO"] == "/send":
            return service(environ, start)
        if environ["REQUEST_METHOD"] == "POST":
            return Response("no", 404)(environ, start)
        return own.connect(environ, zone="news")(environ, start)

    here = site(app)
    url = f"http://127.0.0.1:{here.port}"
    code, table, _ = said(f"{url}/events", "--streams", "1", "--rate", "50", "--duration", "0.1", "--patience", "3")
    assert code == 1 and "nothing arrived" in table and "--zone" in table
    code, _, errors = said(f"{url}/events", "--streams", "1", "--send-url", f"{url}/other", *QUICK)
    assert code == 1 and f"{url}/other: 404" in errors and "mounted beside your own routes" in errors
