"""A language model's answer, token by token: straight from the generator, or through a hub and so safe from reloads."""

import collections
import contextlib
import secrets
import threading
import time

from flask import Flask, abort, request, send_file

from ssehub import Hub, HubClosed, MemoryLog, Message, event_stream

PAUSE = 0.08
AT_ONCE = 20  # answers that are written at a time

app, hub = Flask(__name__), Hub(MemoryLog(size=100_000, ttl=3600), detach=True)
answers = collections.deque(maxlen=100)  # ids of those that can be followed: as many as the log has room for
running = set()  # what the model is at work on


class ModelError(Exception):
    """The model has failed in the midst of an answer."""


def model(prompt):
    """Be a language model, or at least pause like one. The word "fail" makes it fail."""
    work = object()
    running.add(work)
    try:
        for word in f'You wrote "{prompt}". I only repeat it: {prompt} {prompt} {prompt}'.split():
            time.sleep(PAUSE)
            if word == "fail":
                raise ModelError("the model has run out of words")
            yield word + " "
    finally:  # also when the client has left: then this generator is closed where it stands
        running.discard(work)


def events(prompt):
    """Make the tokens events. Whatever happens, the last one says how it has ended."""
    with contextlib.closing(model(prompt)) as tokens:
        try:
            for token in tokens:
                yield Message(token, "token")
            yield Message("", "end")
        except ModelError as error:
            yield Message(str(error), "failed")  # not "error": by that name EventSource tells of broken connections


@app.get("/")
def page():
    return send_file("index.html")


@app.post("/ask")
def ask():
    return event_stream(events(asked()))


@app.post("/answers")
def start():
    prompt, answer = asked(), secrets.token_urlsafe(12)  # who knows the answer's name may follow it
    if len(running) >= AT_ONCE:
        abort(503, "the model is busy; try again in a moment")
    answers.append(answer)
    threading.Thread(target=write, args=(answer, prompt), name="answer", daemon=True).start()
    return {"answer": answer}, 201


def write(answer, prompt):
    with contextlib.suppress(HubClosed), contextlib.closing(events(prompt)) as messages:
        for message in messages:
            if answer not in answers:
                return  # it was stopped
            hub.broadcast(message, zone=answer)


@app.get("/answers/<answer>")
def follow(answer):
    if answer not in answers:
        abort(404)
    # From its first token; a browser that was cut off says where it was, and that is where it goes on.
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
