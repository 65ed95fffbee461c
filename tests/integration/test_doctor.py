"""The doctor, against each fault made on purpose: real servers, real proxies, and a Redis."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from ssehub import Client, Hub, MemoryLog, StreamRefused
from ssehub.cli.doctor import _line
from ssehub.service import create_app
from ssehub.tools.doctor import Finding, Target, examine
from ssehub.tools.doctor.checks import redis
from tests.apps.clinic import ORIGIN
from tests.apps.compressing import compressed
from tests.conftest import Site
from tests.redis_server import RedisServer, ask
from tests.scripted import CERTIFICATE, REFUSED, STREAM, Exchange, Server, held
from tests.servers import ROOT, answers, free_port, gunicorn, nginx, process
from tests.streams import GUARD, until

Serve = Callable[[Any], Site]
Found = dict[str, Finding]

#: What is wrong with each of nginx's servers.
_FAULTS = {
    "buffering": "proxy_ignore_headers X-Accel-Buffering;",
    "gzip": "gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;",
    "impatient": "proxy_read_timeout 1s;",
    "stripping": 'proxy_set_header Last-Event-ID "";',
    "ssl": "",
    "ssl http2": "",
}


def look(url: str, **options: Any) -> Found:
    options = {"time": 6.0, "streams": 3, "token": "secret", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {finding.check: finding for finding in examine(Target(url, **options))}


def look_at_redis(url: str, **options: Any) -> Found:
    return {finding.check: finding for finding in redis.ask(Target("http://127.0.0.1/events", log=url, **options))}


def judged(found: Found, verdict: str) -> set[str]:
    return {check for check, finding in found.items() if finding.verdict == verdict}


@contextmanager
def clinic(
    *more: str, worker: str = "gthread", threads: int = 40, heartbeat: str = "0.2", **environment: str
) -> Iterator[str]:
    """Serve a service under gunicorn."""
    port = free_port()
    command = (*gunicorn(worker, port, *more, threads=threads)[:-1], "tests.apps.clinic:app")
    with process(*command, HEARTBEAT=heartbeat, **environment):
        until(lambda: _answers_tls(port) if "--certfile" in more else answers(port), "gunicorn to answer")
        yield f"http{'s' if '--certfile' in more else ''}://127.0.0.1:{port}/events"


def _answers_tls(port: int) -> bool:
    try:
        return requests.get(f"https://127.0.0.1:{port}/health", verify=str(CERTIFICATE), timeout=GUARD).ok
    except requests.ConnectionError:
        return False


HOOK = ("-c", "python:ssehub.integrations.gunicorn")


@pytest.fixture(scope="module")
def healthy() -> Iterator[str]:
    with clinic(*HOOK) as url:
        yield url


@pytest.fixture(scope="module")
def proxies(healthy: str) -> Iterator[dict[str, str]]:
    """Give addresses of one service behind an nginx with one fault each."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        slow = stack.enter_context(clinic(heartbeat="30"))
        ports = {name: free_port() for name in _FAULTS}
        servers = ""
        for name, fault in _FAULTS.items():
            behind = (slow if name == "impatient" else healthy).removesuffix("/events")
            kind = name if name.startswith("ssl") else ""
            servers += (
                f"server {{ listen 127.0.0.1:{ports[name]} {kind}; location / {{ proxy_pass {behind}; {fault} }} }}\n"
            )
        http = f"ssl_certificate {CERTIFICATE}; ssl_certificate_key {CERTIFICATE};\n{servers}"
        stack.enter_context(process(*nginx(Path(folder), http)))
        until(lambda: answers(ports["buffering"]), "nginx to answer")
        yield {
            name: f"http{'s' if name.startswith('ssl') else ''}://127.0.0.1:{port}/events"
            for name, port in ports.items()
        }


def test_of_a_healthy_service_all_is_well(proxies: dict[str, str]) -> None:
    found = look(proxies["ssl http2"], verify=str(CERTIFICATE), origin=ORIGIN, streams=6)
    assert judged(found, "ok") == set(found), found
    assert {"answer", "http/2", "cors", "server", "one log", "delivery", "leaving", "heartbeat", "resuming"} <= set(
        found
    )
    assert "gthread, requests at once: 40, processes: 1" in found["server"].seen
    assert found["serving"].seen == "6 open: 6 parked" and "max_connections=20 of 40 threads" in found["limit"].seen


def test_without_http_2_the_six_connections_are_told(proxies: dict[str, str]) -> None:
    found = look(proxies["ssl"], verify=False)
    assert judged(found, "warn") == {"http/2"} and "HTTP/1.1 only" in found["http/2"].seen


def test_a_certificate_nobody_trusts_is_told(proxies: dict[str, str]) -> None:
    found = look(proxies["ssl"])
    assert judged(found, "FAIL") == {"answer"}
    assert "self-signed" in found["answer"].seen and "--ca" in found["answer"].fix


def test_a_proxy_that_buffers_is_told(proxies: dict[str, str]) -> None:
    found = look(proxies["buffering"], time=1.0)
    assert judged(found, "FAIL") == {"first bytes"}
    assert "the hub sends at once" in found["first bytes"].seen and "proxy_buffering off;" in found["first bytes"].fix


def test_a_proxy_that_compresses_is_told(proxies: dict[str, str]) -> None:
    found = look(proxies["gzip"])
    assert found["compression"].verdict == "warn" and "gzip off;" in found["compression"].fix
    assert judged(found, "FAIL") == set()
    assert "plain HTTP" in found["http/2"].seen and "six connections" in found["http/2"].seen


def test_a_proxy_that_cuts_what_is_silent_is_told(proxies: dict[str, str]) -> None:
    found = look(proxies["impatient"])
    assert judged(found, "FAIL") == {"silence"}
    assert "was cut after" in found["silence"].seen and "proxy_read_timeout 1h;" in found["silence"].fix


def test_a_proxy_that_strips_the_last_event_id_is_told(proxies: dict[str, str]) -> None:
    found = look(proxies["stripping"], time=1.2)
    assert "resuming" in judged(found, "FAIL") and "Last-Event-ID" in found["resuming"].fix


def test_of_the_sync_worker_all_is_well_because_streams_leave_it() -> None:
    with clinic(worker="sync") as url:
        found = look(url, streams=6)
    assert judged(found, "FAIL") == set() and judged(found, "warn") == {"http/2"}, found
    assert found["serving"].seen == "6 open: 6 detached"
    assert "no stream holds a thread" in found["limit"].seen and found["restart"].verdict == "ok"


@pytest.mark.parametrize(
    ("fault", "why", "fix"),
    [
        ({"COMPRESS": "1"}, "a middleware compresses the stream", "exclude the stream's path"),
        ({"DETACH": "no"}, "detach=False", "Hub(detach=True)"),
    ],
)
def test_a_sync_worker_that_a_stream_holds_is_told(fault: dict[str, str], why: str, fix: str) -> None:
    with clinic(worker="sync", **fault) as url:
        found = look(url, time=1.2)
    assert {"serving", "other requests"} <= judged(found, "FAIL"), found
    assert "has one thread, and a stream holds it" in found["serving"].seen
    assert why in found["serving"].seen and fix in found["serving"].fix
    assert found["restart"].verdict == "ok"


def test_fewer_threads_than_streams_are_told() -> None:
    with clinic(*HOOK, threads=4) as url:
        found = look(url, time=1.2, streams=6)
    assert {"streams", "other requests", "serving"} == judged(found, "FAIL"), found
    assert "of 6 only 4 are open: 2 wait" in found["streams"].seen and "--threads" in found["streams"].fix
    assert "detach=None" in found["serving"].seen and "Hub(detach=True)" in found["serving"].fix
    assert "max_connections=20" in found["limit"].seen and found["limit"].verdict == "warn"


def test_fewer_threads_than_streams_are_no_fault_where_streams_leave_them() -> None:
    with clinic(*HOOK, threads=4, DETACH="yes") as url:
        found = look(url, streams=12)
    assert judged(found, "FAIL") == set() and judged(found, "warn") == {"http/2"}, found
    assert found["serving"].seen == "12 open: 12 detached" and found["limit"].verdict == "ok"


def test_streams_that_can_take_all_threads_are_a_warning_before_they_do() -> None:
    with clinic(*HOOK, threads=10) as url:
        found = look(url)
    assert judged(found, "FAIL") == set() and "limit" in judged(found, "warn"), found
    assert "the server has 10 threads" in found["limit"].seen
    assert "Hub(detach=True)" in found["limit"].fix and "max_connections=1)" in found["limit"].fix


def test_streams_that_a_middleware_compresses_are_told_to_stay_on_threads() -> None:
    with clinic(*HOOK, COMPRESS="1") as url:
        found = look(url)
    assert found["serving"].verdict == "ok" and found["limit"].verdict == "ok", found
    assert "3 on the server's threads (a middleware compresses the stream)" in found["serving"].seen
    assert "exclude the stream's path" in found["serving"].fix


def test_tls_in_the_server_is_told_to_keep_streams_on_threads() -> None:
    certificate = str(CERTIFICATE)
    with clinic(*HOOK, "--certfile", certificate, "--keyfile", certificate) as url:
        found = look(url, verify=False)
    assert "TLS is in the server's process" in found["serving"].seen and "TLS in a proxy" in found["serving"].fix


def test_a_server_that_shows_no_socket_is_told_to_keep_streams_on_threads() -> None:
    port = free_port()
    command = ("-m", "waitress", f"--listen=127.0.0.1:{port}", "--threads=10", "tests.apps.clinic:app")
    with process(sys.executable, *command):
        until(lambda: answers(port), "waitress to answer")
        found = look(f"http://127.0.0.1:{port}/events")
    assert "3 on the server's threads (the server does not show the client's socket)" in found["serving"].seen
    assert "gunicorn" in found["serving"].fix


def test_several_workers_on_a_memory_log_are_told_by_the_server_and_by_the_streams_alone() -> None:
    with clinic("-w", "2") as url:
        assert judged(look(url, time=2.0), "FAIL") >= {"one log"}

        def told_by_streams() -> Finding | None:
            # Which worker takes a connection is chance.
            found = look(url, time=1.0, streams=20, stats_url=url.replace("/events", "/health"))["one log"]
            return found if found.verdict == "FAIL" else None

        assert "are of 2 logs" in until(told_by_streams).seen


def test_gevent_with_preload_is_told() -> None:
    with clinic(*HOOK, "--preload", worker="gevent") as url:
        found = look(url)
    assert judged(found, "warn") == {"preload", "http/2"} and judged(found, "FAIL") == set()


class Late:
    """An application whose head leaves with the first event, after a while."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")])
        if environ["PATH_INFO"] == "/events":
            time.sleep(self._seconds)
        yield b"data: at last\n\n"


def test_a_head_that_waits_for_the_first_event_is_told(site: Serve) -> None:
    found = look(f"http://127.0.0.1:{site(Late(0.8)).port}/events", time=1.4)
    assert judged(found, "FAIL") == {"first bytes"}
    assert re.search(r"came after [01]\.", found["first bytes"].seen) and "send a comment" in found["first bytes"].fix


def test_a_middleware_that_compresses_is_told(site: Serve, make_hub: Callable[..., Hub]) -> None:
    here = site(compressed(create_app(make_hub(heartbeat=0.3), public=False), is_flushed=False))
    found = look(f"http://127.0.0.1:{here.port}/events", time=1.0)
    assert "compression" in judged(found, "FAIL") and "COMPRESS_MIMETYPES" in found["compression"].fix


def respond(status: str, *headers: tuple[str, str], body: bytes = b"") -> Any:
    """Make an application that answers so, and at /login with a page."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/login":
            start_response("200 OK", [("Content-Type", "text/html")])
            return [b"<form>"]
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    return application


@pytest.mark.parametrize(
    ("app", "seen", "fix"),
    [
        (respond("302 Found", ("Location", "/login")), "a redirect: 302 to http://127.0.0.1", "--header 'Cookie"),
        (respond("200 OK", ("Content-Type", "text/html")), "event stream: 200 OK, text/html", "text/event-stream"),
        (respond("401 Unauthorized"), "not an event stream: 401", "--header 'Cookie"),
        (respond("204 No Content"), "not an event stream: 204", "do not reconnect"),
        (respond("503 Service Unavailable"), "not an event stream: 503", "refuse_with=200"),
        (respond("302 Found", ("Location", "/events")), "redirects", "--header 'Cookie"),
    ],
)
def test_what_is_no_stream_is_told(site: Serve, app: Any, seen: str, fix: str) -> None:
    found = look(f"http://127.0.0.1:{site(app).port}/events")
    assert judged(found, "FAIL") == {"answer"} and judged(found, "skip") == {"server, threads, log"}
    assert seen in found["answer"].seen and fix in found["answer"].fix


def test_a_redirect_to_the_stream_is_told(healthy: str, site: Serve) -> None:
    here = site(respond("302 Found", ("Location", healthy)))
    found = look(f"http://127.0.0.1:{here.port}/events", time=2.0, streams=1)
    assert found["answer"].verdict == "warn" and healthy in found["answer"].seen


def test_a_server_that_never_answers_is_told_without_waiting_for_long(scripted: Callable[..., Server]) -> None:
    found = look(scripted(held()).url, time=0.6)
    assert judged(found, "FAIL") == {"answer"} and "neither the stream nor" in found["answer"].seen


def test_what_is_no_http_or_no_tls_is_told(site: Serve, scripted: Callable[..., Server]) -> None:
    babble = scripted(held(b"SSH-2.0-OpenSSH_9.2\r\n")).url
    assert "no answer" in look(babble, time=1.0)["answer"].seen
    plain = site(respond("200 OK")).port
    assert "TLS" in look(f"https://127.0.0.1:{plain}/events", time=1.0)["answer"].seen


def test_missing_and_unfit_headers_are_told(site: Serve) -> None:
    app = respond("200 OK", ("Content-Type", "text/event-stream"), body=b"data: all at once\n\n")
    found = look(f"http://127.0.0.1:{site(app).port}/events", origin=ORIGIN, time=2.0)
    assert {"headers", "cors"} <= judged(found, "FAIL")
    assert f'origins=["{ORIGIN}"]' in found["cors"].fix and "Content-Length" in found["headers"].seen


def test_a_hub_that_is_full_is_told(site: Serve, make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(max_connections=2, heartbeat=0.2)
    here = site(create_app(hub, public=False))
    url = f"http://127.0.0.1:{here.port}/events"
    found = look(url, time=2.0, token=None)
    assert (
        "of 3 only 2 are open: 1 were refused" in found["streams"].seen and "max_connections=2" in found["streams"].fix
    )
    until(lambda: not hub.connections())
    staying = [here.stream("/events") for _ in range(2)]
    for stream in staying:
        stream.opened()
    assert "max_connections=2" in look(url, time=2.0)["first bytes"].fix
    for stream in staying:
        stream.close()


def test_heartbeats_that_come_in_clumps_are_told(scripted: Callable[..., Server]) -> None:
    def clumps(exchange: Exchange) -> None:
        if exchange.target != "/events":
            exchange.send(REFUSED % 404)
            return
        exchange.send(STREAM + b": hello\n\n")
        while not exchange.server._closing:
            time.sleep(0.1)
            exchange.send(b": beat\n\n: beat\n\n: beat\n\n")

    found = look(scripted(clumps).url + "/events", time=2.0)
    assert "heartbeat" in judged(found, "warn") and "3 heartbeats came in one piece" in found["heartbeat"].seen


def test_a_heartbeat_that_the_hub_tells_and_that_does_not_come_is_told(scripted: Callable[..., Server]) -> None:
    told = b'{"stats": {}, "server": {"heartbeat": 0.1}}'

    def held_back(exchange: Exchange) -> None:
        if exchange.target == "/events":
            exchange.send(STREAM + b"event: ssehub.open\ndata: {}\n\n")
            exchange.hold()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        exchange.send(b"Content-Length: %d\r\n\r\n%s" % (len(told), told))

    found = look(scripted(held_back).url + "/events", time=1.3, streams=1)
    assert {"heartbeat", "resuming"} <= judged(found, "FAIL")
    assert "something holds it back" in found["heartbeat"].seen and "flushpackets=on" in found["heartbeat"].fix


def numbered(exchange: Exchange) -> None:
    """Be a server that is not ours: numbered events, a heartbeat, and what comes after the last event id."""
    if exchange.target != "/stream":
        exchange.send(REFUSED % 404)
        return
    first = int(exchange.headers.get("last-event-id", "0")) + 1
    exchange.send(STREAM.replace(b"\r\n\r\n", b"\r\nCache-Control: no-store\r\n\r\n") + b"retry: 100\n\n")
    for number in range(first, 4):
        exchange.send(b"id: %d\ndata: x\n\n" % number)
    while not exchange.server._closing:
        time.sleep(0.2)
        exchange.send(b": beat\n\n")


def test_another_servers_stream_gets_the_checks_that_are_possible(scripted: Callable[..., Server]) -> None:
    found = look(scripted(numbered).url + "/stream", time=5.0)
    assert judged(found, "FAIL") == set() and judged(found, "skip") == {
        "cors",
        "server",
        "one log",
        "delivery",
        "leaving",
    }
    assert judged(found, "warn") == {"http/2", "retry"}
    assert found["resuming"].verdict == found["heartbeat"].verdict == found["streams"].verdict == "ok"
    assert all(found[check].seen for check in judged(found, "skip"))


def only(begun: bytes) -> Callable[[Exchange], None]:
    """Be a stream that begins with this, and then stands still, with nothing beside it."""

    def script(exchange: Exchange) -> None:
        exchange.send(STREAM + begun if exchange.target == "/events" else REFUSED % 404)
        if exchange.target == "/events":
            exchange.hold()

    return script


def test_a_silence_without_heartbeat_is_no_more_than_skipped_when_it_was_short(scripted: Callable[..., Server]) -> None:
    found = look(scripted(only(b": hello\n\n")).url + "/events", time=0.5)
    assert found["heartbeat"].verdict == "skip" and "--time" in found["heartbeat"].fix


def test_test_messages_go_only_to_streams_that_are_nobody_elses(site: Serve, make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(heartbeat=0.1)
    here = site(create_app(hub, token="secret"))
    url = f"http://127.0.0.1:{here.port}/events"
    known = {"Authorization": "Bearer secret"}
    bystander = here.stream("/events?client_id=ada", **known)
    bystander.opened()
    found = look(url, time=2.0, token=None)
    assert found["delivery"].verdict == "skip" and "--token" in found["server"].fix and hub.stats()["messages"] == 0
    found = look(f"{url}?client_id=ada", time=2.0, token="secret", headers=known)
    assert found["delivery"].verdict == "skip" and hub.stats()["messages"] == 0
    assert look(url, time=2.0, token="secret")["delivery"].verdict == "ok" and hub.stats()["messages"] == 3
    hub.broadcast("for all")
    assert bystander.message().data == "for all"
    bystander.close()


def test_a_redis_as_it_should_be_is_told_so_and_left_as_it_was(healthy: str, tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--appendonly", "yes")
    try:
        found = look(healthy, log=server.url)
        mine = {check: finding for check, finding in found.items() if check.startswith("redis")}
        assert len(mine) == 7 and judged(mine, "ok") == set(mine), mine
        assert server.client.dbsize() == 0
    finally:
        server.close()


def test_a_redis_that_will_lose_the_log_or_cut_its_readers_is_told(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--save", "")
    try:
        for name, value in (
            ("maxmemory", "100mb"),
            ("maxmemory-policy", "allkeys-lru"),
            ("client-output-buffer-limit", "normal 65536 0 0 pubsub 65536 0 0"),
            ("timeout", "1"),
        ):
            server.client.config_set(name, value)
        for _ in range(30):
            server.client.xadd("{ssehub}:log", {"h": "x", "d": "x" * 1000})
        found = look_at_redis(server.url, log_size=20)
        assert {"redis memory", "redis buffers"} <= judged(found, "FAIL")
        assert {"redis disk", "redis timeouts", "redis log"} <= judged(found, "warn")
        assert "noeviction" in found["redis memory"].fix and "appendonly yes" in found["redis disk"].fix
        ask(server, "ACL", "SETUSER", "default", "-hset", "-config")
        found = look_at_redis(server.url)
        assert found["redis rights"].verdict == "FAIL" and "HSET" in found["redis rights"].seen
        assert found["redis buffers"].verdict == "skip" and "managed" in found["redis buffers"].fix
    finally:
        server.close()
    assert look_at_redis(server.url)["redis"].verdict == "FAIL"


def test_a_log_that_is_spread_otherwise_is_told(redis_server: RedisServer) -> None:
    redis_server.client.set("{doctor-spread}:partitions", 4)
    found = look_at_redis(redis_server.url, log_name="doctor-spread", partitions=2)
    assert found["redis log"].verdict == "FAIL" and "--partitions 4" in found["redis log"].fix


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "ssehub", "doctor", *arguments)
    environment = {**os.environ, "SSEHUB_TOKEN": "secret"}
    return subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_the_command_writes_a_line_for_each_check_and_its_exit_code_tells_of_failures(healthy: str) -> None:
    well = doctor(healthy, "--time", "4")
    assert (well.returncode, well.stderr) == (0, "") and "\x1b" not in well.stdout
    assert all(line[:4].strip() in ("ok", "warn", "skip") for line in well.stdout.splitlines())
    refused = doctor(f"http://127.0.0.1:{free_port()}/events", "--json", "--time", "2")
    first = json.loads(refused.stdout.splitlines()[0])
    assert (refused.returncode, refused.stderr) == (1, "")
    assert first["verdict"] == "FAIL" and "Connection refused" in first["seen"] and first["fix"]


def test_what_cannot_be_looked_at_is_a_line_and_no_traceback() -> None:
    for wrong in (("127.0.0.1:80/events",), ("http://127.0.0.1/", "--log", "http://127.0.0.1/")):
        done = doctor(*wrong)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("ssehub: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "wrong",
    [{"url": "http://:80/"}, {"url": "http://x:99999/"}, {"time": -1.0}, {"streams": 0}, {"stats_url": "ftp://x/"}],
)
def test_a_case_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Target(**{"url": "http://127.0.0.1/", **wrong})


def test_ctrl_c_ends_it_and_what_is_known_is_told(scripted: Callable[..., Server]) -> None:
    url = scripted(numbered).url + "/stream"
    command = (sys.executable, "-m", "ssehub", "doctor", url, "--time", "3600", "--streams", "1")
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    lines: list[str] = []
    while not any("leaving" in line for line in lines):
        lines.append(running.stdout.readline())
    running.send_signal(signal.SIGINT)
    rest, errors = running.communicate(timeout=3 * GUARD)
    assert (running.returncode, errors) == (130, "")
    assert "retry: " in rest and "interrupted" in rest


def test_colours_are_for_terminals() -> None:
    finding = Finding("FAIL", "heartbeat", "none", "Hub(heartbeat=15)")
    assert _line(finding, False) == "FAIL  heartbeat: none -> Hub(heartbeat=15)"
    assert _line(finding, True) == "\x1b[1;31mFAIL\x1b[0m  heartbeat: none -> Hub(heartbeat=15)"


def test_the_service_tells_of_its_server_only_those_who_may_look(site: Serve, make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(MemoryLog(), heartbeat=7.0, max_connections=5)
    url = f"http://127.0.0.1:{site(create_app(hub, token='secret')).port}/stats"
    assert "server" not in requests.get(url, timeout=GUARD).json()
    facts = requests.get(url, timeout=GUARD, headers={"Authorization": "Bearer secret"}).json()["server"]
    assert facts["heartbeat"] == 7.0 and facts["max_connections"] == 5 and facts["shared_log"] is False
    assert facts["software"].startswith("Werkzeug") and facts["multithread"] and facts["shows_socket"]


def test_events_without_ids_are_a_warning(scripted: Callable[..., Server]) -> None:
    found = look(scripted(only(b"data: x\n\ndata: y\n\n")).url + "/events", time=1.0)
    assert found["resuming"].verdict == "warn" and "without ids" in found["resuming"].seen


@pytest.mark.parametrize("value", ["[" * 100_000, '{"server": {"heartbeat": 1%s}}' % ("0" * 400), '{"a": 1e999}'])
def test_what_a_service_tells_may_be_anything(scripted: Callable[..., Server], value: str) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.target == "/stats":
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + value.encode())
        else:
            exchange.send(STREAM + b"event: ssehub.open\ndata: " + b"[" * 100_000 + b"\n\n")
            exchange.hold()

    found = look(scripted(script).url + "/events", time=0.5, streams=1)
    assert found["answer"].verdict == "ok" and found["first bytes"].verdict == "ok"


def test_an_answer_without_an_end_does_not_hold_the_doctor(scripted: Callable[..., Server]) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.target != "/stats":
            exchange.send(STREAM + b": there\n\n")
            exchange.hold()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
        while True:  # until the other side leaves
            exchange.send(b"1")
            time.sleep(0.01)

    found = look(scripted(script).url + "/events", time=0.5, streams=1)
    assert found["answer"].verdict == "ok"


def test_nothing_that_a_server_says_is_a_command_for_the_terminal(scripted: Callable[..., Server]) -> None:
    said = "\x1b]52;c;eA==\x07 \x9b31m \u202egpj"
    no = b"HTTP/1.1 403 \x1b[31m\r\nServer: \x1b[31m\r\nContent-Type: text/plain; charset=utf-8\r\n"
    no += b"Content-Length: %d\r\n\r\n%s" % (len(said.encode()), said.encode())
    url = scripted(lambda exchange: exchange.send(no)).url
    for more in ((), ("--json",)):
        shown = doctor(url, "--time", "0.2", *more)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown.stdout + shown.stderr), shown
        assert "u001b" in shown.stdout


def test_a_token_that_the_service_does_not_know_is_told(site: Serve, make_hub: Callable[..., Hub]) -> None:
    here = site(create_app(make_hub(heartbeat=0.1), token="secret"))
    found = look(f"http://127.0.0.1:{here.port}/events", time=1.0, token="wrong")
    assert found["server"].verdict == "warn" and "does not know this token" in found["server"].seen


def test_what_a_refusal_says_is_told(scripted: Callable[..., Server]) -> None:
    def picky(exchange: Exchange) -> None:
        body = b'{"error": "username must be a name"}'
        exchange.send(b"HTTP/1.1 400 BAD REQUEST\r\nContent-Type: application/json\r\n")
        exchange.send(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    url = scripted(picky).url + "/events"
    assert "username must be a name" in look(url, time=1.0)["answer"].seen
    with pytest.raises(StreamRefused, match=r"400 BAD REQUEST from .*: username must be a name"):
        Client(url).run()
