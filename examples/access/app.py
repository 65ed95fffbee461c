"""Who may follow what: by the session's cookie, or by a token in the URL where there is no cookie."""

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

# In your application this is the database, and signed_out, when the user last signed out, is a column of it. Each room
# is a zone of the hub.
USERS = {
    "ada": {"password": generate_password_hash("lovelace"), "rooms": ["kitchen", "garden"], "signed_out": 0.0},
    "bob": {"password": generate_password_hash("babbage"), "rooms": ["garden"], "signed_out": 0.0},
}
OTHER_SITE = "http://127.0.0.1:8001"


def create_app(other_site=OTHER_SITE, **settings):
    """Make the application.

    :param other_site: the origin of the site whose pages may ask for tokens and follow, too.
    """
    app = Flask(__name__)
    app.config.from_mapping(
        SECRET_KEY=os.environ.get("SECRET_KEY") or secrets.token_hex(),  # several workers need to be given the same
        SESSION_COOKIE_NAME="access",
        SESSION_COOKIE_SAMESITE="Lax",
        TOKEN_AGE=60,  # seconds within which a stream has to be opened; how long it then lasts is the hub's max_age
        SSEHUB_URL="/events",
        SSEHUB_ORIGINS=[other_site],
        SSEHUB_MAX_AGE=3600,  # after this a stream ends, its client comes back, and is asked again
    )
    app.config.update(settings)
    tokens = URLSafeTimedSerializer(app.secret_key, salt="stream")  # what is signed for other purposes is no token

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
        """Return whose stream, or whose request, this is; None for nobody's."""
        if request.endpoint == "ssehub.events" and "token" in request.args:
            return read_token()["user"]
        user = session.get("user")
        return user if user in USERS else None

    def may(request, action, zones, client_id):
        """Say whether a stream may be opened. Nothing is registered before; an abort is as good as False."""
        if client_id is None:
            abort(401, "sign in, or bring a token")
        rooms = read_token()["rooms"] if "token" in request.args else USERS[client_id]["rooms"]
        return set(zones) <= set(rooms)

    sse = SSEHub(app, client_id=who, authorize=may)

    def check_rooms(rooms):
        """Return the user who makes this request, if the rooms are open to him."""
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
            USERS[user]["signed_out"] = time.time()  # tokens from before open nothing any more
            sse.hub.disconnect(user)  # the browser comes back, and is refused with a 401
        return redirect("/")

    @app.post("/token")
    def token():
        rooms = request.form.getlist("room")
        answer = app.make_response({"token": tokens.dumps({"user": check_rooms(rooms), "rooms": rooms})})
        answer.headers.update(cors_headers(request.headers.get("Origin"), frozenset([other_site])))
        return answer

    @app.post("/say")
    def say():
        match request.get_json():  # 415 for a form, which another site's page could send
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
