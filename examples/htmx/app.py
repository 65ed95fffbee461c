"""A chat that all visitors see, with htmx 2 and without JavaScript of one's own."""

import threading
from collections import deque

from flask import Flask, render_template, request

from ssehub.html import htmx
from ssehub.integrations.flask import SSEHub

app = Flask(__name__)
app.config.from_mapping(SECRET_KEY="change me", SSEHUB_URL="/events")
sse = SSEHub(app)
lines, lock = deque(maxlen=50), threading.Lock()


@app.get("/")
def page():
    with lock:  # no line comes between the cursor and the lines, so none is shown twice
        cursor = sse.cursor("chat")
        return render_template("page.html", lines=list(lines), cursor=cursor)


@app.post("/lines")
def say():
    with lock:
        lines.append(request.form["text"])
        sse.render("line.html", event="line", zone="chat", text=lines[-1])
        sse.broadcast(htmx.oob("count", str(len(lines))), zone="chat")
    return "", 204
