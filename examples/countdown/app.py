"""Ten timestamps, one per second, and an end event. A client that was disconnected gets the rest."""

import re
import time
from datetime import datetime, timezone

from flask import Flask, request, send_file

from ssehub import Message, event_stream, last_event_id

COUNT = 10
PAUSE = 1.0

app = Flask(__name__)


@app.get("/")
def page():
    return send_file("index.html")


@app.get("/sse")
def sse():
    given = last_event_id(request)  # the number of the client's last event; empty for a new client
    done = int(given) if re.fullmatch("[0-9]{1,3}", given) else 0
    if done > COUNT:
        return "", 204  # the client has received the end; "no content" tells browsers not to reconnect
    return event_stream(countdown(done))


def countdown(done):
    yield Message(retry=1000)
    for number in range(done + 1, COUNT + 1):
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        yield Message(now, "timestamp", id=str(number))
        time.sleep(PAUSE)
    yield Message("end flag", "end", id=str(COUNT + 1))
