"""The likes board as a Flask application: a page, a list, three changes, and a stream of the changes."""

import json
import secrets
from datetime import timedelta

import redis
from board import Board
from flask import Flask, abort, render_template, request, session
from werkzeug.exceptions import HTTPException

from ssehub import Hub, LogError, Message, RedisLog

SHOWN = 50  # comments on the page
MOST = 100  # maximum number of comments in a request
CONTENT, NICKNAME = 500, 30  # maximum number of characters
ANONYMOUS = "anonymous"


def create_app(redis_url, name="likes"):
    """Create the application. All processes with the same Redis and name share one board.

    :raises RuntimeError: if Redis does not respond.
    """
    board = Board(redis_url, name)
    hub = Hub(RedisLog(redis_url, name=name))
    app = Flask(__name__)
    app.config.from_mapping(
        SECRET_KEY=board.secret(),
        SESSION_COOKIE_NAME="board",
        SESSION_COOKIE_SAMESITE="Lax",  # pages of other sites cannot like for the visitor; HttpOnly is the default
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=timedelta(days=365),
        MAX_CONTENT_LENGTH=16_384,
    )

    def tell(comment):
        # The message contains the whole state instead of the change, so a repetition does no harm. If this process dies
        # before the broadcast, Redis has the change but the clients do not; the comment's next message corrects this. A
        # message is sent even if nothing has changed, so a client that repeats a failed request corrects it at once.
        # Messages of two workers may arrive in any order, so the page compares their versions.
        hub.broadcast(Message.from_json(comment, "comment"), zone="board")

    @app.get("/")
    def page():
        if "visitor" not in session:
            session["visitor"], session.permanent = secrets.token_hex(16), True
        cursor = hub.cursor()  # before the list is read, so that the stream includes all later changes
        start = {"cursor": cursor, "limit": SHOWN, "comments": board.top(SHOWN, session["visitor"])}
        return render_template("board.html", start=start, content=CONTENT, nickname=NICKNAME, anonymous=ANONYMOUS)

    @app.get("/events")
    def events():
        return hub.connect(request, zone="board", client_id=session.get("visitor"))

    @app.get("/comments")
    def comments():
        limit = request.args.get("limit", str(SHOWN))
        if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= MOST):
            abort(400, f"limit must be a number from 1 to {MOST}")
        return {"comments": board.top(int(limit), session.get("visitor", ""))}

    @app.post("/comments")
    def add():
        fields = read_json()
        if "content" not in fields:
            abort(400, "content is missing")
        content = text(fields, "content", CONTENT) or abort(400, "your comment is empty")
        nickname = " ".join(text(fields, "nickname", NICKNAME).split()) or ANONYMOUS
        comment = board.add(nickname, content)
        tell(comment)
        return {**comment, "liked": False}, 201

    @app.route("/comments/<id>/like", methods=["POST", "DELETE"])
    def like(id):
        visitor = session.get("visitor") or abort(403, "liking needs the cookie that comes with the page /")
        liked = request.method == "POST"
        comment = board.like(id, visitor, liked) or abort(404, "there is no such comment")
        tell(comment)
        mine = {"id": id, "liked": liked, "version": comment["version"]}
        hub.send(visitor, Message.from_json(mine, "liked"), zone="board")  # for the visitor's other tabs
        return {**comment, "liked": liked}

    @app.before_request
    def refuse_forms():
        # Protects from forged requests by browsers and sibling domains that SameSite does not cover: a form cannot send
        # this type, and a script of another origin is not allowed to.
        if request.method not in ("GET", "HEAD", "OPTIONS") and request.mimetype != "application/json":
            abort(415, "the Content-Type must be application/json")

    @app.after_request
    def add_headers(response):
        response.headers["Content-Security-Policy"] = "default-src 'self'; img-src data:; frame-ancestors 'none'"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")  # page and list depend on the visitor and the time
        return response

    @app.errorhandler(HTTPException)
    def refuse(error):
        return {"error": error.description}, error.code

    @app.errorhandler(redis.RedisError)
    @app.errorhandler(LogError)
    def unavailable(error):
        app.logger.error("%s", error)
        return {"error": "the board cannot reach its Redis; try again in a moment"}, 503

    return app


def read_json():
    """Return the JSON object in the body of the request."""
    try:
        fields = json.loads(request.get_data())
    except (ValueError, RecursionError):
        abort(400, "the body is not JSON")
    return fields if isinstance(fields, dict) else abort(400, "the body must be a JSON object")


def text(fields, name, longest):
    """Return the text of a field without surrounding whitespace; empty if the field is missing."""
    value = fields.get(name, "")
    if not isinstance(value, str):
        abort(400, f"{name} must be a text")
    value = value.strip()
    if len(value) > longest:
        abort(400, f"{name} is longer than {longest} characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        abort(400, f"{name} has half of a surrogate pair, which is no text")
    return value
