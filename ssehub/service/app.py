"""A hub as a service: streams, a way to send, and a console page to look at it all."""

from __future__ import annotations

import contextlib
import importlib.resources
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge, Unauthorized
from werkzeug.routing import Map, RequestRedirect, Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from ssehub.exceptions import HubClosed, LogError
from ssehub.log import Process, Session
from ssehub.server.connection import Connection
from ssehub.server.start_position import Since
from ssehub.service.fields import fields_of, packet_of
from ssehub.service.guard import Guard
from ssehub.wsgi.access import Authorize, check_origins, cors_headers, preflight_headers
from ssehub.wsgi.hub import Hub
from ssehub.wsgi.response import NO_SNIFFING
from ssehub.wsgi.script import shared_script
from ssehub.wsgi.server_info import server_info

#: Sessions that ``GET /stats`` lists at the most; one in several zones counts several times.
MAX_LISTED = 1000
#: Bytes of a request to /send at the most: as much as a :class:`~ssehub.Decoder` takes by default.
MAX_BODY = 1 << 20
_TYPES = {"index.html": "text/html", "console.css": "text/css", "console.js": "text/javascript"}
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_RULES = Map(
    [
        Rule("/", endpoint="page", defaults={"name": "index.html"}, methods=["GET"]),
        Rule("/<any('console.css', 'console.js'):name>", endpoint="page", methods=["GET"]),
        Rule("/shared.js", endpoint="script", methods=["GET"]),
        Rule("/events", endpoint="events", methods=["GET"]),
        Rule("/events", endpoint="preflight", methods=["OPTIONS"]),
        Rule("/send", endpoint="send", methods=["POST"]),
        Rule("/send", endpoint="preflight", methods=["OPTIONS"]),
        Rule("/stats", endpoint="stats", methods=["GET"]),
        Rule("/metrics", endpoint="metrics", methods=["GET"]),
        Rule("/health", endpoint="health", methods=["GET"]),
    ]
)


def create_app(
    hub: Hub,
    *,
    token: str | None = None,
    public: bool = True,
    authorize: Authorize | None = None,
    origins: Collection[str] = (),
    hosts: Collection[str] = (),
) -> App:
    """Make the service of a hub.

    ``GET /events?zone=&client_id=&since=`` is a stream; ``zone`` may be repeated. ``POST /send`` takes a form or a JSON
    object with ``data``, ``event``, ``id``, ``retry``, ``comment`` and ``zone``, ``client_id``, ``broadcast``, and
    answers with ``id`` and ``queued``. ``GET /stats`` and ``GET /health`` answer in JSON, ``GET /metrics`` answers
    Prometheus (with ``?zones=1`` also of each zone, for those who may look), ``GET /`` is the console.
    ``GET /shared.js`` is the script by which the tabs of a browser share one stream.
    What is refused is answered with a 4xx and ``{"error": reason}``, and nothing has happened.

    :param hub: whose streams these are.
    :param token: what ``Authorization: Bearer`` must say to send, to see who is connected, and to follow as a client.
        None: nobody may, unless ``public`` is False.
    :param public: False if the server listens on a loopback address only, and no proxy passes requests on to it.
        Without a token and without ``authorize``, requests of this machine may do everything then, if they are not from
        another site's page. The service also answers only if it is called by a loopback name, or one of ``hosts``.
    :param authorize: says who may follow which zones, send to them, and see who is there; see
        :data:`~ssehub.wsgi.access.Authorize`. It is asked before anything is registered. Without it everyone may
        follow zones, and the token says who may do the rest. A request that knows the token is not asked about. Only
        such requests may choose the ``id`` and the ``retry`` of a message.
    :param origins: of other sites whose pages may follow and send, with their users' cookies: ``https://app.example``.
    :param hosts: names by which the service is called; requests for others are refused. Give it if the service can be
        reached only from a network, because a page could read its streams by a name that resolves to it. Empty: any
        name, if the service is public.
    :returns: a WSGI application.
    :raises ValueError: if the token is empty, or an origin is none.
    """
    checked = check_origins(origins)
    return App(hub, Guard(token, public, authorize, checked, hosts), checked)


class App:
    """The WSGI application of :func:`create_app`. Safe to call from any number of threads."""

    def __init__(self, hub: Hub, guard: Guard, origins: frozenset[str]) -> None:
        self._hub = hub
        self._guard = guard
        self._origins = origins

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        response = self._answer(request)
        if request.path in ("/events", "/send"):  # also to a refusal: a page can tell it from a server that is away
            response.headers.update(cors_headers(request.headers.get("Origin"), self._origins))
        response.headers.update(NO_SNIFFING)
        response.headers.setdefault("Cache-Control", "no-store")
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        request.max_content_length = MAX_BODY
        try:
            endpoint, arguments = _RULES.bind_to_environ(request.environ).match()
            if endpoint != "health":
                self._guard.check_host(request)
            answer: Response = getattr(self, f"_{endpoint}")(request, **arguments)
            return answer
        except (ValueError, TypeError) as error:
            return _json({"error": str(error)}, 400)
        except (HubClosed, LogError) as error:
            return _json({"error": str(error)}, 503)
        except HTTPException as error:
            return _refusal(error)

    def _page(self, request: Request, name: str) -> Response:
        content = importlib.resources.files("ssehub.service").joinpath("console", name).read_bytes()
        return Response(content, mimetype=_TYPES[name], headers=_PAGE_HEADERS)

    def _script(self, request: Request) -> Response:
        return shared_script(request)

    def _events(self, request: Request) -> Response:
        zones = request.args.getlist("zone") or ["default"]
        client_id = request.args.get("client_id")
        max_age = self._guard.check_subscribe(request, zones, client_id)
        since = _since(request.args.get("since"))
        return self._hub.connect(request, zone=zones, client_id=client_id, since=since, max_age=max_age)

    def _preflight(self, request: Request) -> Response:
        methods = ("POST",) if request.path == "/send" else ("GET", "HEAD")
        headers = preflight_headers(request.method, request.headers.get("Origin"), self._origins, methods)
        if headers is None:
            raise MethodNotAllowed(methods)
        return Response(status=204, headers=headers)

    def _send(self, request: Request) -> Response:
        if self._guard.trusts(request):
            packet = packet_of(fields_of(request))
        else:
            packet = packet_of(fields_of(request))
            self._guard.check_publish(request, packet)
        receipt = self._hub.send_message(packet)
        return _json({"id": receipt.id, "queued": receipt.queued})

    def _stats(self, request: Request) -> Response:
        stats = self._hub.stats()
        try:
            self._guard.check_inspect(request)
        except HTTPException:  # numbers are for everyone; names, and the reasons of failures, are not
            return _json({"stats": {**stats, "failing": dict.fromkeys(stats["failing"], "")}})
        return _json({"stats": stats, **self._who(), "server": server_info(request.environ, self._hub)})

    def _metrics(self, request: Request) -> Response:
        zones, names = "zones" in request.args, True
        try:
            self._guard.check_inspect(request)
        except HTTPException:
            if zones:
                raise
            names = False  # numbers are for everyone
        try:
            from ssehub.integrations.prometheus import exposition
        except ImportError:
            return _json({"error": "metrics need another package: pip install 'ssehub[prometheus]'"}, 501)
        text, content_type = exposition(self._hub, request.headers.get("Accept"), zones=zones, names=names)
        return Response(text, content_type=content_type)

    def _health(self, request: Request) -> Response:
        failing = sorted(self._hub.failing)  # without the reasons: anyone may ask
        if self._hub.closed:
            return _json({"status": "closing", "failing": failing}, 503)
        return _json({"status": "degraded" if failing else "ok", "failing": failing})

    def _who(self) -> dict[str, Any]:
        sessions: Sequence[Session | Connection] = self._hub.connections()
        processes: list[Process] = []
        with contextlib.suppress(LogError):  # the other processes cannot be asked
            processes = self._hub.processes()
            sessions = self._hub.connections(everywhere=True) if processes else sessions
        zones: dict[str, list[dict[str, Any]]] = {}
        for zone, one in itertools.islice(_by_rank(sessions), MAX_LISTED):
            zones.setdefault(zone, []).append(_session(one))
        unlisted = max(0, sum(len(one.zones) for one in sessions) - MAX_LISTED)
        return {
            "zones": dict(sorted(zones.items())),
            "unlisted": unlisted,
            "processes": [one._asdict() for one in processes],
        }


def _by_rank(sessions: Sequence[Session | Connection]) -> Iterator[tuple[str, Session | Connection]]:
    """Give the first zone of each session, then the second, and so on: one in many zones does not hide the others."""
    for rank in range(max((len(one.zones) for one in sessions), default=0)):
        yield from ((one.zones[rank], one) for one in sessions if rank < len(one.zones))


def _session(one: Session | Connection) -> dict[str, Any]:
    who = {"client_id": one.client_id, "session_id": one.id, "connected_at": one.connected_at}
    return {**who, "process": one.process} if isinstance(one, Session) else who


def _since(text: str | None) -> Since:
    """Read what a stream's address says about where it begins: a number, or a text as it is."""
    if text and text.isascii() and text.isdigit():
        return int(text.lstrip("0")[:9] or "0")
    return text


def _refusal(error: HTTPException) -> Response:
    if isinstance(error, RequestRedirect):
        return redirect(error.new_url, error.code)
    if isinstance(error, RequestEntityTooLarge):
        error.description = f"the body is longer than {MAX_BODY} bytes"
    response = _json({"error": error.description}, error.code or 500)
    for name, value in error.get_headers():
        if name.lower() in ("allow", "location"):
            response.headers[name] = value
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, mimetype="application/json")
