"""``ssehub listen``: what it prints about the messages and the connection, and what it stores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.scripted import NO_MORE, STREAM, Exchange, Server, bodies
from tests.servers import ROOT, free_port

Serve = Callable[..., Server]


def listen(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "ssehub", "listen", *arguments), cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def test_listen_prints_connections_and_losses(scripted: Serve) -> None:
    cut = STREAM[:-2] + b"Content-Length: 100\r\n\r\nretry: 1\ndata: x\n\n"
    result = listen(f"{scripted(bodies(cut, 'data: y' + chr(10) * 2)).url}/p?token=geheim")
    assert result.returncode == 0 and result.stdout == "x\ny\n" and "geheim" not in result.stderr
    first, lost, again, ended, over = result.stderr.splitlines()
    assert "connected to http://" in first and "broke off" in lost and "retrying in" in lost
    assert "connected again" in again and "ended" in ended and "204" in over


def test_listen_stores_its_last_id_in_a_file(scripted: Serve, tmp_path: Path) -> None:
    place = tmp_path / "place"
    cursor = "id: 3\nevent: ssehub.cursor\ndata: .\n\n"
    server = scripted(bodies(f"id: 1\ndata: x\n\nid: 2\ndata: y\n\n{cursor}", NO_MORE, NO_MORE, NO_MORE))
    for _ in range(2):
        assert listen(server.url, "--save-place", str(place), "--event", "other").returncode == 0
    assert place.read_text() == "3" and [one.name for one in tmp_path.iterdir()] == ["place"]
    place.write_text("7\n")
    assert listen(server.url, "--save-place", str(place)).returncode == 0
    assert [one.headers.get("last-event-id") for one in server.requests] == [None, "3", "3", "7"]
    wrong = listen(server.url, "--save-place", str(tmp_path / "nowhere" / "place"))
    assert wrong.returncode == 1 and "nowhere" in wrong.stderr


def test_listen_reconnects_after_silence(scripted: Serve) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.number == 1:
            exchange.send(STREAM + b"retry: 1\ndata: x\n\n")
            exchange.hold()
        exchange.send(NO_MORE)

    result = listen(scripted(script).url, "--idle", "0.2")
    assert result.returncode == 0 and "no data arrived for 0.2 s" in result.stderr
    assert listen("http://127.0.0.1/", "--idle", "-1").returncode == 1
    assert listen(scripted(bodies("data: x\n\n")).url, "--idle", "0").returncode == 0


def test_each_json_object_of_listen_is_one_line_for_any_reader(scripted: Serve) -> None:
    text = "a\u2028b\u2029c\x85d\u202ee\U000e0001 \u2603 \x1b[31m"
    result = listen(scripted(bodies(f"data: {text}\n\n")).url, "--json")
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["data"] == text and "\u2603" in line


def test_listen_prints_a_failure_once() -> None:
    result = listen(f"ftp://me:geheim@127.0.0.1:{free_port()}/")
    assert result.returncode == 1 and "geheim" not in result.stderr and len(result.stderr.splitlines()) == 1
