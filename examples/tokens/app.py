"""A language model's answer as a stream of tokens: directly from the generator, or through a hub to survive reloads."""

import collections
import contextlib
import secrets
import threading
import time

from flask import Flask, abort, request, send_file

from ssehub import Hub, HubClosed, MemoryLog, Message, event_stream

PAUSE = 0.08
AT_ONCE = 20  # maximum number of concurrent answers

app, hub = Flask(__name__), Hub(MemoryLog(size=100_000, ttl=3600), detach=True)
answers = collections.deque(maxlen=100)  # ids of the answers that can be followed; the log has room for as many
running = set()  # answers in progress


class ModelError(Exception):
    """The model has failed during an answer."""


def model(prompt):
    """Simulate a language model with its pauses. The word "fail" makes it fail."""
    work = object()
    running.add(work)
    try:
        for word in f'You wrote "{prompt}". I only repeat it: {prompt} {prompt} {prompt}'.split():
            time.sleep(PAUSE)
            if word == "fail":
                raise ModelError("the model has run out of words")
            yield word + " "
    finally:  # also if the client has disconnected: then the generator is closed here
        running.discard(work)


def events(prompt):
    """Convert the tokens to events. The last event always tells how the answer has ended."""
    with contextlib.closing(model(prompt)) as tokens:
        try:
            for token in tokens:
                yield Message(token, "token")
            yield Message("", "end")
        except ModelError as error:
            yield Message(str(error), "failed")  # not "error", which EventSource uses for broken connections


@app.get("/")
def page():
    return send_file("index.html")


@app.post("/ask")
def ask():
    return event_stream(events(asked()))


@app.post("/answers")
def start():
    prompt, answer = asked(), secrets.token_urlsafe(12)  # a secret id: every client that has it may follow the answer
    if len(running) >= AT_ONCE:
        abort(503, "the model is busy; try again in a moment")
    answers.append(answer)
    threading.Thread(target=write, args=(answer, prompt), name="answer", daemon=True).start()
    return {"answer": answer}, 201


def write(answer, prompt):
    with contextlib.suppress(HubClosed), contextlib.closing(events(prompt)) as messages:
        for message in messages:
            if answer not in answers:
                return  # the answer was stopped
            hub.broadcast(message, zone=answer)


@app.get("/answers/<answer>")
def follow(answer):
    if answer not in answers:
        abort(404)
    # From the first token. A browser that was disconnected sends its last event id, and continues there.
    return hub.connect(request, zone=answer, since="oldest")


@app.delete("/answers/<answer>")
def stop(answer):
    with contextlib.suppress(ValueError):
        answers.remove(answer)
        hub.broadcast(Message("it was stopped", "failed"), zone=answer)
    return "", 204


@app.get("/running")
def at_work():
    return {"running": len(running)}


def asked():
    body = request.get_json()
    prompt = body.get("prompt") if isinstance(body, dict) else None
    if not isinstance(prompt, str) or not 0 < len(prompt) <= 2000:
        abort(400, "prompt must be a text of 1 to 2000 characters")
    return prompt
