"""One user with several sessions: a phone, a laptop, and each of their tabs."""

from collections import defaultdict

from flask import Flask, abort, request, send_file

from ssehub import ALL, Hub, Message, UnknownClient

DEVICES = ("laptop", "phone", "tablet")

app, hub = Flask(__name__), Hub(max_per_client=20)
signed_in = defaultdict(set)  # user -> devices


@app.get("/")
def page():
    return send_file("index.html")


@app.post("/sign-in")
def sign_in():
    signed_in[user()].add(device())
    return {"user": user(), "device": device()}


@app.get("/events")
def events():
    if device() not in signed_in[user()]:
        return "", 204  # "no content" tells browsers not to reconnect
    # The user is the client, and the device is the zone. Each open tab is a session with an id of its own.
    return hub.connect(request, client_id=user(), zone=device())


@hub.on_connection
def tell_status(connection):
    connection.send(Message.from_json(connection.metadata, "status"))


@app.post("/note")
def note():
    """Send to the user's sessions, all or those on one device, except the sender's own."""
    writer = request.form.get("session_id")
    message = Message.from_json({"text": request.form["text"]}, "note")
    zone = device() if "device" in request.form else ALL
    return {"sessions": hub.send(user(), message, zone=zone, exclude=[writer] if writer else ()).queued}


@app.post("/announce")
def announce():
    """Send to the phones of all users, for instance."""
    message = Message.from_json({"text": request.form["text"]}, "announcement")
    return {"sessions": hub.broadcast(message, zone=device()).queued}


@app.post("/status")
def set_status():
    """Store metadata about the user. All sessions share it, and it is deleted when the last one ends."""
    hub.set_metadata(user(), request.form["status"])
    return {"sessions": hub.send(user(), Message.from_json(request.form["status"], "status")).queued}


@app.get("/sessions")
def sessions():
    there = sorted(hub.connections(client_id=user()), key=lambda one: one.connected_at)
    listed = [{"session_id": one.id, "device": one.zone, "since": one.connected_at} for one in there]
    return {"status": there[0].metadata if there else None, "sessions": listed}


@app.post("/disconnect")
def disconnect():
    """End one session. Its browser reconnects a moment later, as a new session."""
    return {"sessions": hub.disconnect(user(), session_id=request.form["session_id"])}


@app.post("/sign-out")
def sign_out():
    """End the sessions on one device, or everywhere, for good: a signed-out user is refused on reconnection."""
    zone = device() if "device" in request.form else ALL
    signed_in[user()] -= set(DEVICES) if zone is ALL else {zone}
    hub.send(user(), Message("", "signed-out"), zone=zone)  # informs the page at once
    return {"sessions": hub.disconnect(user(), zone=zone)}


def user():
    """Return the user of the request. Here users only claim a name; the example "access" verifies it."""
    name = request.values.get("user", "")
    return name if name.isidentifier() and len(name) <= 32 else abort(400, "user must be a name of letters and digits")


def device():
    name = request.values.get("device")
    return name if name in DEVICES else abort(400, f"device must be one of {', '.join(DEVICES)}")


@app.errorhandler(UnknownClient)
def not_there(error):
    return {"error": str(error)}, 404
