"""Types: what a type checker says of a program that uses ssehub."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.servers import ROOT, missing

PROGRAM = """
from datetime import datetime

from flask import Flask, Request, request
from flask.typing import ResponseReturnValue
from werkzeug.wrappers import Response

from ssehub import Client, Connection, Decoder, Gap, Hub, Message, Received, Receipt, decode
from ssehub.integrations.flask import SSEHub

app, hub, sse = Flask(__name__), Hub(), SSEHub()


@app.get("/plain")
def plain() -> ResponseReturnValue:
    return hub.connect(request, zone=["a", "b"])


@app.get("/response")
def response() -> Response:
    return hub.connect(request)


@app.get("/stream")
@sse.stream
def stream() -> list[str]:
    return ["a"]


def send() -> Receipt:
    hub.send("ada", {"at": datetime.now()}, event="task", default=str, exclude=["x"], require=True)
    sse.send("ada", [1, 2.5], id="7", default=lambda value: value.isoformat())
    sse.broadcast("text", zone="a", event="b", id="c", exclude=["x"])
    return hub.broadcast(7)


@hub.on_connection
def come(connection: Connection) -> None:
    connection.send({"a": 1}, event="hello")


@sse.on_gap
@hub.on_gap
def missing(connection: Connection, gap: Gap) -> None:
    connection.send("anew")


sse.on_connection(come)
come(hub.connections()[0])
client = Client("http://127.0.0.1/")


@client.on_event("score")
def score(message: Received) -> str:
    return message.data + message.event + message.id


@client.on_event
def anything(message: Message) -> None:
    print(message)


for message in client:
    message.data.upper(), message.event.upper(), message.id.upper()
client.subscribe().get().data.upper()
for message in decode([b""]):
    message.data.upper()
for message in Decoder().feed(b""):
    hub.broadcast(message.id.upper())
"""
WRONG = """
from ssehub import Connection, Gap, Hub, Message
from ssehub.integrations.flask import SSEHub

hub, sse = Hub(), SSEHub()
hub.broadcast("x", zone=None)
sse.broadcast("x", zones="a")
sse.send(7, "x")


@hub.on_connection
def one(connection: Message) -> None: ...


@sse.on_connection
def two(connection: Connection, gap: Gap) -> None: ...
"""


def check(tmp_path: Path, program: str) -> str:
    """Return what mypy says of a program."""
    file = tmp_path / "program.py"
    file.write_text(program)
    command = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent")
    command += (f"--cache-dir={tmp_path}", str(file))
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
    if "No module named mypy" in done.stderr:
        missing("mypy")
    return done.stdout + done.stderr


def test_a_typed_program_needs_no_casts(tmp_path: Path) -> None:
    assert check(tmp_path, PROGRAM).startswith("Success")


def test_what_is_wrong_in_a_program_is_found(tmp_path: Path) -> None:
    lines = [int(line) for line in re.findall(r"program\.py:(\d+): error", check(tmp_path, WRONG))]
    assert lines == [6, 7, 8, 11, 15]
