"""Two heartbeats: events with the server's time, sent by the application, and the hub's comments in silent streams."""

import contextlib
import itertools
import os
import threading
import time
from datetime import datetime, timezone

from flask import Flask, abort, request, send_file

from ssehub import Backlogged, Hub, Message

INTERVALS = (1, 5, 60)
SECOND = 1.0

# Less than the timeout of each proxy. nginx and many others have 60 seconds by default.
HEARTBEAT = float(os.environ.get("HEARTBEAT", "15"))

app, hub = Flask(__name__), Hub(heartbeat=HEARTBEAT, max_pending=3)
first = threading.Lock()  # acquired once, for the first client, and never released


@app.get("/")
def page():
    return send_file("index.html")


@app.get("/events")
def events():
    if "every" not in request.args:
        return hub.connect(request, zone="news")
    every = request.args.get("every", type=int)
    if every not in INTERVALS:
        abort(400, f"every must be one of {INTERVALS}, in seconds")
    return hub.connect(request, zone=["news", f"every {every} s"])


@app.post("/news")
def news():
    return {"id": hub.broadcast(request.form["text"], zone="news").id}


@hub.on_connection
def start_clock(connection):
    if connection.zones != ("news",):
        tell_time(connection)
    if first.acquire(blocking=False):
        threading.Thread(target=tick, name="clock", daemon=True).start()


def tick():
    for seconds in itertools.count(1):
        time.sleep(SECOND)
        if hub.closed:
            return
        for every in INTERVALS:
            if seconds % every == 0:
                for connection in hub.connections(zone=f"every {every} s"):
                    tell_time(connection)


def tell_time(connection):
    # Past the log: a client that reconnects does not need old times, and they would take space from the news.
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    with contextlib.suppress(Backlogged):  # the client has not read the last three times
        connection.send(Message(now, "time"))
