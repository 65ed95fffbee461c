"""A page and a script on one hub: the page posts jobs, and the script executes them and reports to the right user."""

import hmac
import os
import secrets

from flask import Flask, abort, request, session
from werkzeug.exceptions import HTTPException

from ssehub import Hub, Message

LONGEST = 500  # maximum number of characters of a job


def create_app(secret_key, worker_token):
    """Create the application.

    :param secret_key: the key that signs the cookies. With a new key all visitors are new users.
    :param worker_token: the token of the workers.
    """
    hub = Hub()
    app = Flask(__name__)
    app.config.from_mapping(
        SECRET_KEY=secret_key,
        SESSION_COOKIE_NAME="jobs",
        SESSION_COOKIE_SAMESITE="Lax",
    )

    # For the page: each visitor is a client of the zone "page"

    @app.get("/")
    def page():
        session.setdefault("user", secrets.token_hex(16))
        return app.send_static_file("page.html")

    @app.get("/events")
    def events():
        user = session.get("user") or abort(403, "load the page / first")
        # A new page gets all the user's messages that are still in the log.
        return hub.connect(request, zone="page", client_id=user, since="oldest")

    @app.post("/jobs")
    def post():
        user = session.get("user") or abort(403, "load the page / first")
        match request.get_json():  # 415 for a form, because a page of another site could send one
            case {"text": str(text)} if 0 < len(text.strip()) <= LONGEST and text.isprintable():
                job = {"job": secrets.token_hex(8), "user": user, "text": text.strip()}
            case _:
                abort(400, f"a JSON object with a text of 1 to {LONGEST} characters, on one line, is needed")
        report(**job)  # before the worker gets the job, because the log keeps the order
        hub.broadcast(Message.from_json(job, "job"), zone="jobs")
        return {"job": job["job"], "workers": len(hub.connections("jobs"))}, 202

    # For the script: it follows the zone "jobs"

    @app.get("/worker/jobs")
    def jobs():
        check_token()
        return hub.connect(request, zone="jobs", since="oldest")

    @app.post("/worker/report")
    def take_report():
        check_token()
        try:
            report(**request.get_json())
        except (TypeError, ValueError) as error:
            abort(400, str(error))
        return {}

    def check_token():
        given = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {worker_token}".encode()):
            abort(401, "only workers with the token may do this")

    def report(job, user, text, done=0, of=0, result=None):
        """Send the state of a job to its user alone. It is the whole state, so a repetition does no harm."""
        state = {"job": job, "text": text, "done": done, "of": of, "result": result}
        hub.send(user, Message.from_json(state, "progress"), zone="page")

    @app.errorhandler(HTTPException)
    def refuse(error):
        return {"error": error.description}, error.code

    return app


if missing := {"SECRET_KEY", "WORKER_TOKEN"} - os.environ.keys():
    raise RuntimeError(f"set {' and '.join(sorted(missing))}: two secrets, the second of which the workers know")
app = create_app(os.environ["SECRET_KEY"], os.environ["WORKER_TOKEN"])
