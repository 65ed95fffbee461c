"""A language model's answer, token by token. It outlives the request, the page and the reader, and can be stopped."""

import os
import secrets
import time

from flask import Flask, abort, request, send_file

from ssehub import Hub, ProductionError, SQLiteLog

PAUSE = 0.08

app = Flask(__name__)
# If a worker shows no sign of life for five seconds, its answers are lost.
log = SQLiteLog(os.environ.get("TOKENS_DB", "tokens.db"), size=100_000, lease=5.0)
hub = Hub(log, detach=True)


def model(prompt):
    """Simulate a language model with its pauses. The word "fail" makes it fail."""
    for word in f'You wrote "{prompt}". I only repeat it: {prompt} {prompt} {prompt}'.split():
        time.sleep(PAUSE)
        if word == "fail":
            raise ProductionError("the model has run out of words")
        yield word + " "


@app.get("/")
def page():
    return send_file("index.html")


@app.post("/answers")
def ask():
    # A secret name: everyone who knows it may read and stop the answer. The key comes from the page: if the page sends
    # the question again, because it got no response, it gets the answer that was started first.
    run = hub.produce(secrets.token_urlsafe(12), model(asked("prompt", 2000)), key=asked("key", 100), ttl=600)
    return {"answer": run.zone, "pid": os.getpid() if run.started else None}, 201


@app.get("/answers/<answer>")
def follow(answer):
    # From the first token. A browser that was disconnected sends its last event id, and continues there.
    return hub.connect(request, zone=answer, since="oldest")


@app.delete("/answers/<answer>")
def stop(answer):
    hub.stop(answer)
    return "", 204


def asked(name, longest):
    body = request.get_json()
    text = body.get(name) if isinstance(body, dict) else None
    if not isinstance(text, str) or not 0 < len(text) <= longest:
        abort(400, f"{name} must be a text of 1 to {longest} characters")
    return text
