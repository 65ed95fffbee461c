"""Ten timestamps, one a second, then the end. A client that was cut off comes back for the rest."""

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
    given = last_event_id(request)  # the number of the last event the client has; empty if it is new
    done = int(given) if re.fullmatch("[0-9]{1,3}", given) else 0
    if done > COUNT:
        return "", 204  # it has had the end: "no content" is how a browser is told not to come back
    return event_stream(countdown(done))


def countdown(done):
    yield Message(retry=1000)
    for number in range(done + 1, COUNT + 1):
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        yield Message(now, "timestamp", id=str(number))
        time.sleep(PAUSE)
    yield Message("end flag", "end", id=str(COUNT + 1))
