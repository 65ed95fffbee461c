"""The application for the matrix of servers: a hub, and around it what the environment asks for.

``FRAMEWORK`` is ``wsgi`` (the default), ``flask`` or ``django``; ``DETACH`` is ``None``, ``True`` or ``False``;
``MIDDLEWARE`` names one of :data:`MIDDLEWARES`. ``CONTROL`` is a port on which the same application is served once
more, by a thread of its own: so a test can reach a server whose only thread writes a stream.

``/events`` is a stream, ``/send`` sends ``data`` to everyone, ``/end`` ends the streams of a client, ``/stats`` tells
what the hub and the process have, and ``/other`` is an ordinary request. There is a hub for each value of ``detach``,
and one with heartbeats, ``beats``; ``hub=`` in a query names another than that of ``DETACH``.
"""

from __future__ import annotations

import gc
import json
import os
import threading
import time
import weakref
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

from ssehub import Hub

DETACH = os.environ.get("DETACH", "None")

hubs = {
    name: Hub(heartbeat=float(os.environ.get("HEARTBEAT", "3600")), retry=2000, detach=detach)
    for name, detach in {"None": None, "True": True, "False": False}.items()
}
hubs["beats"] = Hub(heartbeat=0.1)
hub = hubs[DETACH]

#: What was called as requests for streams ended, and how often.
torn_down: Counter[str] = Counter()
#: Objects that belong to requests for streams, as long as they are there.
kept: weakref.WeakSet[Any] = weakref.WeakSet()
#: What is about to be sent.
sending: set[str] = set()
#: Returns how many connections of a pool are in use.
in_use: Callable[[], int] = int


class Thing:
    """Something that is referenced by a request alone."""


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        """Say nothing."""


def events(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer with a stream."""
    environ["tests.thing"] = thing = Thing()
    kept.add(thing)
    query = query_of(environ)
    return hubs[query.get("hub", DETACH)].connect(environ, client_id=query.get("client_id"))(environ, start_response)


def query_of(environ: dict[str, Any]) -> dict[str, str]:
    """Return the parameters of a request."""
    return {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}


def ordinary(environ: dict[str, Any]) -> str | dict[str, Any] | None:
    """Answer an ordinary request: a text, or values for JSON; None if there is nothing at this path."""
    query = query_of(environ)
    own = hubs[query.get("hub", DETACH)]
    match environ.get("PATH_INFO"):
        case "/other" | "/health":
            return "other"
        case "/send":
            sending.add(query["data"])
            time.sleep(float(query.get("after", "0")))
            own.broadcast(query["data"])
            sending.discard(query["data"])
            return "sent"
        case "/end":
            return str(own.disconnect(query["client_id"]))
        case "/stats":
            gc.collect()
            return {
                **own.stats(),
                "pid": os.getpid(),
                "kept": len(kept),
                "torn_down": torn_down,
                "sending": sorted(sending),
                "in_use": in_use(),
            }
        case "/fork":
            return str(_fork())
    return None


def _fork() -> int:
    """Start a child that holds copies of all descriptors, and does nothing until it is ended."""
    number = os.fork()
    if not number:
        try:
            time.sleep(60)
        finally:
            os._exit(0)
    return number


def plain(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Be the application, without a framework."""
    if environ.get("PATH_INFO") == "/events":
        return events(environ, start_response)
    answer = ordinary(environ)
    if isinstance(answer, dict):
        return Response(json.dumps(answer), mimetype="application/json")(environ, start_response)
    return Response(answer or "nothing", 200 if answer else 404)(environ, start_response)


def make_flask() -> Any:
    """Make the application with Flask and Flask-SQLAlchemy."""
    from flask import Flask, jsonify, request
    from flask_sqlalchemy import SQLAlchemy

    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{os.environ.get('DATABASE', '/dev/null')}"
    database = SQLAlchemy(app)
    with app.app_context():
        engine = database.engine

    global in_use  # noqa: PLW0603
    in_use = engine.pool.checkedout

    @app.teardown_request
    def torn(error: BaseException | None) -> None:
        if request.path == "/events":
            torn_down["teardown_request"] += 1

    @app.get("/events")
    def stream() -> Any:
        if "DATABASE" in os.environ:
            database.session.execute(database.text("select 1"))
        thing = Thing()
        request.environ["tests.thing"] = thing
        kept.add(thing)
        kept.add(request._get_current_object())
        return hubs[request.args.get("hub", DETACH)].connect(request, client_id=request.args.get("client_id"))

    @app.route("/<path:path>", methods=["GET", "POST"])
    def others(path: str) -> Any:
        answer = ordinary(request.environ)
        return jsonify(answer) if isinstance(answer, dict) else answer or ("nothing", 404)

    return app


def make_django() -> Any:
    """Make the application with Django."""
    import django
    from django.conf import settings
    from django.core.signals import request_finished, request_started
    from django.core.wsgi import get_wsgi_application
    from django.db import connections
    from django.http import HttpRequest, HttpResponse, JsonResponse
    from django.urls import re_path

    from ssehub.integrations.django import site, views

    settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="secret",
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["ssehub.integrations.django"],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.gzip.GZipMiddleware"],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("DATABASE", "/dev/null")}
        },
        SSEHUB={},
        LOGGING_CONFIG=None,
    )
    django.setup()
    site._hub = hub

    @views.stream
    def stream(request: HttpRequest) -> Any:
        if "DATABASE" in os.environ:
            with connections["default"].cursor() as cursor:
                cursor.execute("select 1")
        kept.add(request)
        return {"client_id": request.GET.get("client_id") or None}

    current = threading.local()

    def started(sender: Any, environ: dict[str, Any], **named: Any) -> None:
        current.path = environ["PATH_INFO"]

    def finished(sender: Any, **named: Any) -> None:
        if current.path == "/events":
            torn_down["request_finished"] += 1

    request_started.connect(started, weak=False)
    request_finished.connect(finished, weak=False)

    def others(request: HttpRequest) -> Any:
        answer = ordinary(request.environ)
        if isinstance(answer, dict):
            return JsonResponse(answer)
        return HttpResponse(answer or "nothing", status=200 if answer else 404)

    global urlpatterns  # noqa: PLW0603
    urlpatterns = [re_path("^events$", stream), re_path("^.*$", others)]
    return get_wsgi_application()


urlpatterns: list[Any] = []

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Changed(Iterator[bytes]):
    """A body, each piece of which is changed."""

    def __init__(self, body: Iterable[bytes], change: Callable[[bytes], bytes]) -> None:
        self._body = body
        self._pieces = iter(body)
        self._change = change

    def __next__(self) -> bytes:
        return self._change(next(self._pieces))

    def close(self) -> None:
        """Close the body, as a middleware has to (PEP 3333)."""
        if hasattr(self._body, "close"):
            self._body.close()


def gzip(app: Application) -> Application:
    """Compress the body, each piece at once."""

    def zipped(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != "/events":
            return app(environ, start_response)
        packer = zlib.compressobj(wbits=31)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("Content-Encoding", "gzip")], exc_info)

        return Changed(app(environ, start), lambda piece: packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH))

    return zipped


def more_headers(app: Application) -> Application:
    """Wrap ``start_response``, and add a header."""

    def wrapped(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("X-Wrapped", "yes")], exc_info)

        return app(environ, start)

    return wrapped


def same_body(app: Application) -> Application:
    """Wrap the body, and change nothing."""
    return lambda environ, start_response: Changed(app(environ, start_response), lambda piece: piece)


def upper(app: Application) -> Application:
    """Have the body in capitals, only for a path of streams."""

    def shouted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = app(environ, start_response)
        return Changed(body, bytes.upper) if environ.get("PATH_INFO") == "/events" else body

    return shouted


MIDDLEWARES: dict[str, Callable[[Application], Application]] = {
    "none": lambda app: app,
    "gzip": gzip,
    "headers": more_headers,
    "body": same_body,
    "upper": upper,
}

_made: Application = {"wsgi": lambda: plain, "flask": make_flask, "django": make_django}[
    os.environ.get("FRAMEWORK", "wsgi")
]()
_wrapped = MIDDLEWARES[os.environ.get("MIDDLEWARE", "none")](_made)
_control_lock = threading.Lock()
_controls: list[Any] = []


def _control() -> None:
    """Serve once more, in the process that serves: the server may have forked since."""
    with _control_lock:
        if _controls:
            return
        _controls.append(make_server("127.0.0.1", int(os.environ["CONTROL"]), plain, True, request_handler=_Quiet))
        threading.Thread(target=_controls[0].serve_forever, daemon=True).start()


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Be the application."""
    if "CONTROL" in os.environ and not _controls:
        _control()
    return _wrapped(environ, start_response)
