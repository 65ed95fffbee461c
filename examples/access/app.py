"""Access control for streams: by the session cookie, or by a token in the URL if there is no cookie."""

import os
import secrets
import time

from flask import Flask, abort, redirect, render_template, request, session
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer
from werkzeug.exceptions import HTTPException
from werkzeug.security import check_password_hash, generate_password_hash

from ssehub import Message
from ssehub.integrations.flask import SSEHub
from ssehub.wsgi.access import cors_headers

# In your application these are tables of the database, and signed_out (the time of the last sign-out) is a column of
# the users. Each room is a zone of the hub.
USERS = {
    "ada": {"password": generate_password_hash("lovelace"), "rooms": ["kitchen", "garden"], "signed_out": 0.0},
    "bob": {"password": generate_password_hash("babbage"), "rooms": ["garden"], "signed_out": 0.0},
}
OTHER_SITE = "http://127.0.0.1:8001"


def create_app(other_site=OTHER_SITE, **settings):
    """Create the application.

    :param other_site: another origin whose pages may request tokens and follow streams.
    """
    app = Flask(__name__)
    app.config.from_mapping(
        SECRET_KEY=os.environ.get("SECRET_KEY") or secrets.token_hex(),  # must be the same in all workers
        SESSION_COOKIE_NAME="access",
        SESSION_COOKIE_SAMESITE="Lax",
        TOKEN_AGE=60,  # seconds within which a stream has to be opened; max_age limits the stream itself
        SSEHUB_URL="/events",
        SSEHUB_ORIGINS=[other_site],
        SSEHUB_MAX_AGE=3600,  # seconds after which a stream ends; its client reconnects and is authorized again
    )
    app.config.update(settings)
    tokens = URLSafeTimedSerializer(app.secret_key, salt="stream")  # the salt rejects values signed for other purposes

    def read_token():
        try:
            token, made = tokens.loads(request.args["token"], max_age=app.config["TOKEN_AGE"], return_timestamp=True)
        except SignatureExpired:
            abort(401, "the token has expired")
        except BadSignature:
            abort(401, "the token is not one of ours")
        if made.timestamp() < USERS[token["user"]]["signed_out"]:
            abort(401, "the user has signed out since")
        return token

    def who():
        """Return the user who makes the request; None for an unknown user."""
        if request.endpoint == "ssehub.events" and "token" in request.args:
            return read_token()["user"]
        user = session.get("user")
        return user if user in USERS else None

    def may(request, action, zones, client_id):
        """Decide whether a stream may be opened. Nothing is registered before; abort() has the same effect as False."""
        if client_id is None:
            abort(401, "sign in, or bring a token")
        rooms = read_token()["rooms"] if "token" in request.args else USERS[client_id]["rooms"]
        return set(zones) <= set(rooms)

    sse = SSEHub(app, client_id=who, authorize=may)

    def check_rooms(rooms):
        """Return the user of this request, if the user may enter these rooms."""
        user = who() or abort(401, "sign in first")
        return user if set(rooms) <= set(USERS[user]["rooms"]) else abort(403, "that room is not open to you")

    @app.get("/")
    def page():
        user = who()
        return render_template("page.html", user=user, rooms=USERS[user]["rooms"]) if user else login_form()

    @app.post("/login")
    def login():
        name, password = request.form.get("user"), request.form.get("password", "")
        if name not in USERS or not check_password_hash(USERS[name]["password"], password):
            return login_form("No user has this name and password."), 401
        session["user"] = name
        return redirect("/")

    @app.post("/logout")
    def logout():
        user = session.pop("user", None)
        if user is not None:
            USERS[user]["signed_out"] = time.time()  # earlier tokens are invalid from now on
            sse.hub.disconnect(user)  # the browser reconnects, and is refused with a 401
        return redirect("/")

    @app.post("/token")
    def token():
        rooms = request.form.getlist("room")
        answer = app.make_response({"token": tokens.dumps({"user": check_rooms(rooms), "rooms": rooms})})
        answer.headers.update(cors_headers(request.headers.get("Origin"), frozenset([other_site])))
        return answer

    @app.post("/say")
    def say():
        match request.get_json():  # 415 for a form, because a page of another site could send one
            case {"room": str(room), "text": str(text)} if text.isprintable():
                message = {"room": room, "user": check_rooms([room]), "text": text[:500]}
                return {"id": sse.broadcast(Message.from_json(message), zone=room).id}
        abort(400, "a JSON object with the texts room and text, each on one line, is needed")

    app.after_request(add_headers)
    app.register_error_handler(HTTPException, refuse)
    return app


def login_form(error=""):
    return render_template("login.html", error=error)


def add_headers(response):
    response.headers["Content-Security-Policy"] = "default-src 'self'; img-src data:; frame-ancestors 'none'"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def refuse(error):
    return {"error": error.description}, error.code
