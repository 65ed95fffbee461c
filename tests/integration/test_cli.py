"""The command line, as a user types it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ssehub.cli import main
from ssehub.cli.serve import _OpenResponses
from tests.redis_server import RedisServer
from tests.scripted import REFUSED, Exchange, Server, bodies
from tests.servers import ROOT, children, free_port
from tests.streams import GUARD, Stream, call, until

SSEHUB = (sys.executable, "-m", "ssehub")


@contextlib.contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        (*SSEHUB, *arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    watchdog = threading.Timer(6 * GUARD, running.kill)
    watchdog.start()
    try:
        yield running
    finally:
        running.kill()
        running.communicate()
        watchdog.cancel()
        watchdog.join()


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    with command("serve", "--port", "0", *arguments) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        found = re.search(r":(\d+)/", line)
        assert found, line
        yield running, int(found[1])


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((*SSEHUB, *arguments), check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)


def lines(running: subprocess.Popen[str], count: int) -> list[str]:
    assert running.stdout is not None
    return [running.stdout.readline().rstrip("\n") for _ in range(count)]


def test_serve_listen_and_send_go_together() -> None:
    with serving() as (_, port):
        events = f"http://127.0.0.1:{port}/events?zone=news&client_id=ada"
        with command("listen", events) as listener:
            until(lambda: call(port, "GET", "/stats")[1]["stats"]["connections"] == 1)
            sent = [
                run("send", f"http://127.0.0.1:{port}", "to all"),
                run("send", f"http://127.0.0.1:{port}/", "to the zone", "--zone", "news", "--event", "headline"),
                run("send", f"http://127.0.0.1:{port}/send", "to ada\nin two lines", "--client-id", "ada", "--id", "7"),
                run("send", f"http://127.0.0.1:{port}", "elsewhere", "--zone", "sport"),
            ]
            assert [(one.returncode, one.stderr) for one in sent] == [(0, "")] * 4
            said = [one.stdout.partition(" queued for ")[2] for one in sent]
            assert said == [f"{count} in the process that received it\n" for count in (1, 1, 1, 0)]
            assert lines(listener, 4) == ["to all", "headline: to the zone", "to ada", "in two lines"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_service_with_open_streams_and_they_are_told(number: signal.Signals) -> None:
    with serving() as (running, port):
        streams = [Stream(port, "/events") for _ in range(10)]
        for stream in streams:
            stream.opened()
        running.send_signal(number)
        assert running.wait(GUARD) == 0
        _, errors = running.communicate()
        assert errors == ""
        for stream in streams:
            assert stream.rest() == [] and (stream.decoder.reconnection_time or 0) >= 2000
            stream.close()


def test_streams_hold_no_thread_of_the_service() -> None:
    with serving() as (running, port):
        streams = [Stream(port, "/events") for _ in range(50)]
        for stream in streams:
            stream.opened()
        until(lambda: call(port, "GET", "/stats")[1]["stats"]["detached"] == 50)
        until(lambda: _threads(running.pid) < 15)
        call(port, "POST", "/send", {"data": "to all", "broadcast": "true"})
        for stream in streams:
            assert stream.message().data == "to all"
            stream.close()
        until(lambda: call(port, "GET", "/stats")[1]["stats"]["connections"] == 0)


def _threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def test_workers_share_one_hub_in_a_file_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    with serving("--workers", "3", "--log", f"sqlite:{tmp_path}/hub.db") as (running, port):
        streams = [Stream(port, "/events?zone=a") for _ in range(9)]
        for stream in streams:
            stream.opened()
        assert run("send", f"http://127.0.0.1:{port}", "to all", "--zone", "a").returncode == 0
        assert [stream.message().data for stream in streams] == ["to all"] * 9
        workers = children(running)
        assert len(workers) == 3
        dead = workers.pop()
        os.kill(dead, signal.SIGKILL)
        until(lambda: len(children(running) - {dead}) == 3)
        assert children(running) > workers
        for stream in streams:
            stream.close()
        Stream(port, "/events?zone=a").opened()
        workers = children(running)
        running.send_signal(signal.SIGTERM)
        assert running.wait(3 * GUARD) == 0
        assert running.stderr is not None and f"worker {dead} has ended (SIGKILL)" in running.stderr.read()
        until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    with serving("--workers", "2", "--log", f"sqlite:{tmp_path}/hub.db") as (running, port):
        Stream(port, "/events").opened()
        workers = children(running)
        running.kill()
        until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_file_that_cannot_be_used_is_told_before_the_service_starts(tmp_path: Path, workers: str) -> None:
    result = run("serve", "--port", "0", "--log", f"sqlite:{tmp_path}/missing/hub.db", "--workers", workers)
    assert (result.returncode, result.stdout) == (1, "") and "there is no folder" in result.stderr


def test_workers_need_a_shared_log() -> None:
    for log in ((), ("--log", "memory:")):
        result = run("serve", "--port", "0", "--workers", "2", *log)
        assert result.returncode == 1 and "sqlite:hub.db" in result.stderr
    for wrong in ("0", "x", "65", "-1"):
        assert run("serve", "--workers", wrong).returncode == 2


def test_ctrl_c_ends_listen_without_a_word() -> None:
    with serving() as (_, port), command("listen", f"http://127.0.0.1:{port}/events") as listener:
        assert listener.stderr is not None and "connected" in listener.stderr.readline()
        listener.send_signal(signal.SIGINT)
        assert listener.wait(GUARD) == 130
        assert listener.communicate() == ("", "")


def test_listen_comes_back_after_a_restart_and_tells_the_gap() -> None:
    port = str(free_port())
    with command("listen", f"http://127.0.0.1:{port}/events") as listener:
        assert listener.stderr is not None
        assert "refused" in listener.stderr.readline()
        with command("serve", "--port", port):
            until(lambda: _connections(port) == 1)
            run("send", f"http://127.0.0.1:{port}", "before")
            assert lines(listener, 1) == ["before"]
        with command("serve", "--port", port):
            until(lambda: _connections(port) == 1)
            run("send", f"http://127.0.0.1:{port}", "after")
            assert lines(listener, 1) == ["after"]
        listener.kill()
        assert "messages are missing" in listener.stderr.read()


def _connections(port: str) -> int:
    try:
        return int(call(int(port), "GET", "/stats")[1]["stats"]["connections"])
    except OSError:
        return 0


def test_the_token_is_needed_and_taken() -> None:
    with serving("--token", "secret") as (_, port):
        url = f"http://127.0.0.1:{port}"
        refused, taken = run("send", url, "x"), run("send", url, "x", "--token", "secret")
        assert (refused.returncode, refused.stdout) == (1, "") and "token" in refused.stderr
        assert taken.returncode == 0
        listening = run("listen", f"{url}/events?client_id=ada")
        assert listening.returncode == 1 and "401" in listening.stderr


def test_a_server_for_everybody_says_that_it_needs_a_token() -> None:
    with serving("--host", "0.0.0.0") as (running, port):
        assert running.stderr is not None and "--token" in running.stderr.readline()
        assert call(port, "POST", "/send", {"data": "x", "broadcast": "true"})[0] == 403


def test_a_server_answers_to_loopback_names_and_those_that_were_allowed() -> None:
    with serving("--allow-host", "hub.example") as (_, port):
        for host, status in (("localhost", 200), ("hub.example", 200), ("rebound.example", 403)):
            assert call(port, "GET", "/stats", None, Host=f"{host}:{port}")[0] == status


def test_what_fails_says_so_in_one_line_and_exits_with_1() -> None:
    with serving() as (_, port):
        url = f"http://127.0.0.1:{port}"
        for arguments, text in (
            (("send", f"http://127.0.0.1:{free_port()}", "x"), "refused"),
            (("send", url, "x", "--zone", ""), "zone is empty"),
            (("send", "no url", "x"), "no url"),
            (("listen", url), "not an event stream"),
            (("listen", f"{url}/nothing"), "404"),
            (("listen", f"{url}/events?zone="), "400"),
            (("serve", "--port", "0", "--heartbeat", "0"), "heartbeat"),
            (("serve", "--port", "0", "--token", ""), "token"),
        ):
            result = run(*arguments)
            assert result.returncode == 1 and text in result.stderr, (arguments, result)
            assert len(result.stderr.splitlines()) == 1, result.stderr


def test_wrong_arguments_exit_with_2_and_the_version_is_told() -> None:
    assert run().returncode == run("listen").returncode == run("serve", "--port", "x").returncode == 2
    assert re.fullmatch(r"ssehub \d+\.\d+\.\d+\n", run("--version").stdout)


def test_a_pipe_that_is_closed_ends_listen_quietly() -> None:
    with serving() as (_, port), command("listen", f"http://127.0.0.1:{port}/events") as listener:
        assert listener.stderr is not None and "connected" in listener.stderr.readline()
        assert listener.stdout is not None
        listener.stdout.close()
        call(port, "POST", "/send", {"data": "x", "broadcast": "true"})
        assert listener.wait(GUARD) == 1
        assert listener.stderr.read() == ""
        listener.stdout = None


def test_listen_is_a_good_pipe(scripted: Callable[..., Server]) -> None:
    server = scripted(
        bodies("retry: 10\nid: 1\ndata: a\n\nevent: score\nid: 2\ndata: \u2603\ndata: 2\n\n", "event: x\ndata: c\n\n")
    )
    result = run("listen", server.url, "--json", "--last-event-id", "0", "--header", "X-Key: a:b", "--header", "Y:")
    assert result.returncode == 0
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"event": "message", "data": "a", "id": "1"},
        {"event": "score", "data": "\u2603\n2", "id": "2"},
        {"event": "x", "data": "c", "id": "2"},
    ]
    first = server.requests[0].headers
    assert (first["last-event-id"], first["x-key"], first["y"]) == ("0", "a:b", "")
    server = scripted(bodies("retry: 10\ndata: a\n\nevent: score\ndata: b\n\nevent: x\ndata: c\n\n"))
    result = run("listen", server.url, "--event", "score", "--event", "message")
    assert (result.returncode, result.stdout) == (0, "a\nscore: b\n")


def test_listen_says_what_happens_on_stderr(scripted: Callable[..., Server]) -> None:
    away = b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\nRetry-After: 0\r\n\r\n"
    gap = 'retry: 10\nevent: ssehub.gap\ndata: {"reason":"trimmed","missed":3}\n\ndata: x\n\n'
    result = run("listen", scripted(bodies(gap, away, REFUSED % 404)).url)
    assert result.returncode == 1 and result.stdout == "x\n"
    connected, missing, ended, busy, final = result.stderr.splitlines()
    assert "connected to http://127.0.0.1" in connected and "ended" in ended
    assert "missing: 3 (trimmed)" in missing and re.search("503 Away.*retrying in", busy) and "404" in final


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_listen_while_it_waits_to_connect(
    scripted: Callable[..., Server], number: signal.Signals
) -> None:
    server = scripted(lambda exchange: exchange.send(b"HTTP/1.1 503 No\r\nRetry-After: 999\r\n\r\n"))
    with command("listen", server.url) as listener:
        assert listener.stderr is not None and "503" in listener.stderr.readline()
        listener.send_signal(number)
        assert listener.wait(GUARD) == 128 + number and listener.stderr.read() == ""


def test_send_takes_lines_from_the_input_and_answers_in_json(scripted: Callable[..., Server]) -> None:
    with serving() as (_, port):
        url = f"http://127.0.0.1:{port}"
        with command("listen", f"{url}/events") as listener:
            until(lambda: call(port, "GET", "/stats")[1]["stats"]["connections"] == 1)
            result = subprocess.run(
                (*SSEHUB, "send", url, "-", "--json"), input="one\ntwo\n\nfour", capture_output=True, text=True,
                check=True, cwd=ROOT, timeout=60,
            )  # fmt: skip
            assert [json.loads(line)["queued"] for line in result.stdout.splitlines()] == [1] * 4
            assert lines(listener, 4) == ["one", "two", "", "four"]

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    server = scripted(script)
    assert run("send", server.url, "x", "--header", "X-Key: 1").returncode == 0
    assert server.requests[0].headers["x-key"] == "1"


def test_wrong_headers_and_types_are_refused() -> None:
    assert run("listen", "http://127.0.0.1/", "--header", "no colon").returncode == 2
    assert run("listen", "http://127.0.0.1/", "--event", "").returncode == 1
    assert run("listen", "ftp://127.0.0.1/").returncode == 1


def test_a_shared_log_joins_services_and_takes_messages_from_the_shell(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = redis_server.url.replace("/0", "/1")
    with serving("--log", log) as (_, one), serving("--log", log) as (_, two):
        streams = [Stream(port, "/events?zone=eu") for port in (one, two)]
        for stream in streams:
            stream.opened()
        sent = [
            run("send", f"http://127.0.0.1:{one}", "through a service"),
            run("send", "--log", log, "--zone", "eu", "past every service"),
            run("send", "--log", log, "--zone", "us", "elsewhere"),
            run("send", "--log", log, "--json", "end"),
        ]
        assert [(done.returncode, done.stderr) for done in sent] == [(0, "")] * 4
        for stream in streams:
            assert stream.data(3) == ["through a service", "past every service", "end"]
            stream.close()
    spread = (*("--log", log), *("--name", "spread"), *("--partitions", "4"))
    with serving(*spread) as (_, port):
        stream = Stream(port, "/events?zone=eu")
        stream.opened()
        assert run("send", *spread, "--zone", "eu", "in its partition").returncode == 0
        assert stream.data(1) == ["in its partition"]
        stream.close()
    assert run("send", *spread[:-1], "0", "x").stderr == "ssehub: partitions must be 1 to 1024, not 0\n"
    assert run("send", "x").returncode == run("send", "--log", log, "http://x", "x").returncode == 1
    monkeypatch.setenv("SSEHUB_LOG", log)
    with serving() as (_, port):
        stream = Stream(port, "/events?zone=eu")
        stream.opened()
        assert run("send", "--zone", "eu", "from the environment").returncode == 0
        assert run("send", f"http://127.0.0.1:{port}", "to an address").returncode == 0
        assert stream.data(2) == ["from the environment", "to an address"]
        stream.close()
    nobody = redis_server.url.replace("//", "//nobody:wrong@")
    assert "not accepted: invalid username" in run("send", "--log", nobody, "x").stderr
    assert run("send", "--log", "nonsense", "x").returncode == 1


#: What a terminal would obey: a colour, the clipboard (OSC 52) in C0 and in C1, a bell, a text turned round.
HOSTILE = "\x1b[31m \x1b]52;c;eA==\x07 \x9d52;c;eA==\x9c \x7f \u202egpj.exe \u2066 \u2028"
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028]")


def is_harmless(result: subprocess.CompletedProcess[str]) -> bool:
    return not _COMMANDS.search(result.stdout + result.stderr)


def test_nothing_that_a_server_sends_is_a_command_for_the_terminal(scripted: Callable[..., Server]) -> None:
    refused = b"".join(
        (b"HTTP/1.1 404 \x1b]52;c;eA==\x07\r\nContent-Type: text/plain; charset=utf-8\r\n",
         b"Content-Length: %d\r\n\r\n%s" % (len(HOSTILE.encode()), HOSTILE.encode())),
    )  # fmt: skip
    gap = json.dumps({"reason": HOSTILE, "missed": 1})
    stream = f"retry: 10\ndata: one\tline\ndata: {HOSTILE}\n\nevent: {HOSTILE}\ndata: x\nid: {HOSTILE}\n\n"
    script = bodies(stream + f"event: ssehub.gap\ndata: {gap}\n\n", refused)
    for arguments in ((), ("--json",)):
        server = scripted(script)
        shown = run("listen", server.url, *arguments)
        assert is_harmless(shown) and "404" in shown.stderr and "missing" in shown.stderr, shown
        if arguments:
            first, second = (json.loads(line) for line in shown.stdout.splitlines())
            assert first["data"] == f"one\tline\n{HOSTILE}" and second["event"] == second["id"] == HOSTILE
        else:
            assert shown.stdout.startswith("one\tline\n\\u001b[31m \\u001b]52;c;eA==\\u0007 \\u009d52;c;eA==")
            assert "\\u202egpj.exe" in shown.stdout
    answer = json.dumps({"id": HOSTILE, "queued": HOSTILE}).encode()
    accepted = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer)
    error = json.dumps({"error": HOSTILE}).encode()
    no = b"HTTP/1.1 400 No\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(error), error)
    for reply, code in ((accepted, 0), (no, 1)):
        for arguments in ((), ("--json",)):
            sent = run("send", scripted(bodies(reply)).url, "x", *arguments)
            assert sent.returncode == code and is_harmless(sent) and "u001b" in sent.stdout + sent.stderr


def test_send_finds_the_service_where_it_is_mounted(scripted: Callable[..., Server]) -> None:
    for path, target in {"": "/send", "/events": "/send", "/sse/events?zone=a": "/sse/send", "/sse/": "/sse/send",
                         "/sse/send": "/sse/send", "/own": "/own"}.items():  # fmt: skip
        server = scripted(bodies(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
        assert run("send", server.url + path, "x").returncode == 0
        assert server.requests[0].target == target


def test_send_takes_no_interim_response_for_the_answer(scripted: Callable[..., Server]) -> None:
    accepted = b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"id":"a","queued":1}'
    sent = run("send", scripted(bodies(b"HTTP/1.1 103 Early Hints\r\n\r\n" + accepted)).url, "x")
    assert sent.returncode == 0 and sent.stdout.startswith("a queued for 1")

    def script(exchange: Exchange) -> None:
        with contextlib.suppress(OSError):
            while True:  # until the other side leaves
                exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    sent = run("send", scripted(script).url, "x")
    assert sent.returncode == 1 and "longer than" in sent.stderr


def test_send_takes_no_answer_without_an_end(scripted: Callable[..., Server]) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
        while True:  # until the other side leaves
            exchange.send(b"1," * (1 << 16))

    sent = run("send", scripted(script).url, "x")
    assert sent.returncode == 1 and "not that of an ssehub service" in sent.stderr


# What a stranger has found


def test_the_hubs_own_events_are_shown_to_who_names_them(scripted: Callable[..., Server]) -> None:
    server = scripted(bodies("retry: 10\nevent: ssehub.open\ndata: me\n\ndata: x\n\nevent: ssehub.cursor\ndata: .\n\n"))
    result = run("listen", server.url, "--event", "ssehub.open", "--event", "message")
    assert (result.returncode, result.stdout) == (0, "ssehub.open: me\nx\n")


def test_a_line_that_cannot_be_sent_is_told_and_the_others_are_sent(scripted: Callable[..., Server]) -> None:
    with serving() as (_, port):
        url = f"http://127.0.0.1:{port}"
        with command("listen", f"{url}/events") as listener:
            until(lambda: call(port, "GET", "/stats")[1]["stats"]["connections"] == 1)
            given = b"one\n\xff\n" + b"x" * 1_100_000 + b"\nfour\n"
            done = subprocess.run(
                (*SSEHUB, "send", url, "-"), input=given, capture_output=True, cwd=ROOT, timeout=60, check=False
            )
            assert done.returncode == 1 and done.stderr.decode().startswith(
                "ssehub: line 3 was not sent: the body is longer"
            )
            assert lines(listener, 3) == ["one", "\ufffd", "four"]


def test_lines_wait_for_a_service_that_is_not_there_yet() -> None:
    port = str(free_port())
    sender = subprocess.Popen(
        (*SSEHUB, "send", f"http://127.0.0.1:{port}", "-"), cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with sender:
        assert sender.stdin is not None and sender.stderr is not None
        sender.stdin.write("late\n")
        sender.stdin.close()
        assert f"127.0.0.1:{port}: [Errno" in sender.stderr.readline()
        with command("serve", "--port", port):
            assert sender.wait(2 * GUARD) == 0


def test_no_password_and_no_token_of_an_address_is_shown(scripted: Callable[..., Server]) -> None:
    for url in (scripted(bodies(REFUSED % 404)).url, f"http://127.0.0.1:{free_port()}", "http://127.0.0.1:1"):
        secret = url.replace("//", "//user:geheim@") + "/?token=geheim"
        with command("listen", secret) as listener:
            assert listener.stderr is not None
            said = listener.stderr.readline()
            assert said and "geheim" not in said


@pytest.mark.parametrize(
    "url",
    ["htp://u:geheim@127.0.0.1:1/", "u:geheim@127.0.0.1/", "http://u:geheim/x@127.0.0.1/", "http://u:geheim@h:x/"],
)
@pytest.mark.parametrize(
    "arguments", [("listen",), ("send", "x"), ("bench",), ("doctor",), ("bench", "http://127.0.0.1:1/", "--send-url")]
)
def test_an_address_that_is_refused_is_shown_without_its_password(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], url: str
) -> None:
    command, *more = arguments
    assert main([command, url, *more] if command == "send" else [command, *more, url]) == 1
    said = capsys.readouterr().err
    assert said.startswith("ssehub: ") and "geheim" not in said


@pytest.mark.parametrize(
    "arguments",
    [("bench", "http://127.0.0.1:1/", "--header", "A: geheim\nx"), ("listen", "http://h/", "--header", "geheim")],
)
def test_a_header_that_is_refused_is_not_shown(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    with contextlib.suppress(SystemExit):
        main(arguments)
    said = capsys.readouterr().err
    assert "header" in said and "geheim" not in said


@pytest.mark.parametrize("port", ["99999", "-1", "x", "65536"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    result = run("serve", f"--port={port}")
    assert result.returncode == 2 and "0 to 65535" in result.stderr


def test_what_the_terminal_cannot_show_ends_nothing(scripted: Callable[..., Server]) -> None:
    server = scripted(bodies("retry: 10\ndata: \u2603\n\n"))
    done = subprocess.run(
        (*SSEHUB, "listen", server.url), capture_output=True, text=True, cwd=ROOT, timeout=60, check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.stdout == "\\u2603\n"


def test_send_takes_the_streams_address_for_the_services_and_says_what_an_address_lacks() -> None:
    with serving() as (_, port):
        sent = run("send", f"http://127.0.0.1:{port}/events?zone=default", "hello")
        assert sent.returncode == 0 and "queued for 0" in sent.stdout
        lacking = run("send", f"127.0.0.1:{port}", "hello")
        assert lacking.returncode == 1 and f"perhaps it is http://127.0.0.1:{port}" in lacking.stderr
        taken = run("serve", "--port", str(port))
        assert taken.returncode == 1 and "choose another port" in taken.stderr


def test_a_response_that_the_server_forgets_does_not_hold_up_the_end() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        yield b"never ends"
        yield b"never read"

    responses = _OpenResponses(app)
    forgotten, closed = iter(responses({}, None)), responses({}, None)
    next(forgotten)
    waiting = threading.Thread(target=responses.wait, args=(600.0,))
    del forgotten
    waiting.start()
    waiting.join(0.01)
    assert waiting.is_alive(), "one is open"
    closed.close()  # type: ignore[attr-defined]
    waiting.join(GUARD)
    assert not waiting.is_alive()
