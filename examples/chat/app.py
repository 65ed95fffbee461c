"""A chat: messages to all and to one person, and a list of the people who are present."""

import threading
import time

from flask import Flask, abort, request, send_file
from werkzeug.exceptions import HTTPException

from ssehub import Hub, Message, UnknownClient

app, hub = Flask(__name__), Hub()
presence = threading.Lock()


@app.get("/")
def page():
    return send_file("index.html")


@app.get("/chat/sse")
def stream():
    # The name is the client id. All tabs with the same name receive all its messages.
    return hub.connect(request, zone="chat", client_id=name("username"))


@app.post("/chat/broadcast")
def broadcast():
    hub.broadcast(written("broadcast", name("from")), zone="chat")
    return {"message": "success"}


@app.post("/chat/direct")
def direct():
    sender, recipient = name("from"), name("to")
    message = written("direct", sender, recipient)
    hub.send(recipient, message, zone="chat", require=True)  # UnknownClient if the recipient is not here
    if sender != recipient:
        hub.send(sender, message, zone="chat")  # for all tabs of the sender
    return {"message": "success"}


@hub.on_connection
@hub.on_disconnect
def tell_who_is_there(connection):
    # Several threads run this concurrently. The lock ensures that the list sent last is the newest. The list contains
    # clients instead of connections, so that a user disappears with the last tab.
    with presence:
        users = sorted({one.client_id for one in hub.connections(zone="chat")})
        hub.broadcast(Message.from_json(users, "online"), zone="chat")


def name(field):
    text = request.values.get(field, "").strip()
    if not 0 < len(text) <= 32 or not text.isprintable():
        abort(400, f"{field} must be a name of 1 to 32 printable characters")
    return text


def written(kind, sender, recipient=None):
    text = request.values.get("message", "").strip()
    if not 0 < len(text) <= 2000:
        abort(400, "message must have 1 to 2000 characters")
    now = time.time_ns() // 1_000_000
    fields = {"type": kind, "from": sender, "to": recipient, "message": text, "timestamp": now}
    return Message.from_json(fields, kind)


@app.errorhandler(UnknownClient)
def not_here(error):
    return {"error": str(error)}, 404


@app.errorhandler(HTTPException)
def refused(error):
    return {"error": error.description}, error.code
