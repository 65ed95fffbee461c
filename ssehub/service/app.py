"""App: a hub as a service, with event streams, an endpoint to send messages, and a console page."""

from __future__ import annotations

import contextlib
import importlib.resources
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, RequestEntityTooLarge, Unauthorized
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

#: Maximum number of sessions that ``GET /stats`` lists. A session in several zones counts several times.
MAX_LISTED = 1000
#: Maximum number of messages in a response of ``GET /history``.
MAX_HISTORY = 1000
#: The fields of a message in a response of ``GET /history``.
_FIELDS = ("id", "event", "data")
#: Maximum size of a request to /send in bytes: as much as a :class:`~ssehub.Decoder` accepts by default.
MAX_BODY = 1 << 20
#: The paths that pages of other origins may use.
_SHARED = ("/events", "/history", "/send")
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
        Rule("/history", endpoint="history", methods=["GET"]),
        Rule("/history", endpoint="preflight", methods=["OPTIONS"]),
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
    """Return a WSGI application that offers a hub as a service.

    * ``GET /events?zone=&client_id=&since=`` is an event stream. ``zone`` may be repeated.
    * ``POST /send`` takes a form or a JSON object with the fields ``data``, ``event``, ``id``, ``retry`` and
      ``comment`` of the message, and ``zone``, ``client_id`` and ``broadcast`` of its address. It returns ``id`` and
      ``queued``.
    * ``GET /history?zone=&client_id=&since=&limit=`` returns messages that the log still has, as JSON.
    * ``GET /stats`` and ``GET /health`` return JSON. ``GET /metrics`` returns Prometheus metrics; with ``?zones=1``
      they include each zone, if the request may inspect connections.
    * ``GET /`` is the console, and ``GET /shared.js`` the script with which the tabs of a browser share one stream.

    A refused request has no effect. Its response is a 4xx with ``{"error": reason}``.

    :param hub: the hub of the streams.
    :param token: the value of ``Authorization: Bearer`` with which a request may send, see who is connected, and follow
        with a client id. None: no request may, unless ``public`` is False.
    :param public: False if the server listens only on a loopback address, and no proxy passes requests to it. If there
        is neither a token nor ``authorize`` then, requests from this machine may do everything, except requests from
        pages of other sites. The service also answers only if the ``Host`` is a loopback name or one of ``hosts``.
    :param authorize: decides which requests may follow zones, send to them, and see who is connected; see
        :data:`~ssehub.wsgi.access.Authorize`. It is called before anything is registered. Without it every request may
        follow zones, and the token decides about the rest. It is not called for a request with the token. Only requests
        with the token may choose the ``id`` and the ``retry`` of a message.
    :param origins: other origins whose pages may follow and send, with their users' cookies: ``https://app.example``.
    :param hosts: host names of the service; requests for other names are refused. Set it if the service is only
        reachable inside a network, because otherwise a page whose own name resolves to it could read its streams.
        Empty: any name, if the service is public.
    :returns: a WSGI application.
    :raises ValueError: if the token is empty, or an origin is invalid.
    """
    checked = check_origins(origins)
    return App(hub, Guard(token, public, authorize, checked, hosts), checked)


class App:
    """The WSGI application of :func:`create_app`. Thread-safe."""

    def __init__(self, hub: Hub, guard: Guard, origins: frozenset[str]) -> None:
        self._hub = hub
        self._guard = guard
        self._origins = origins

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        request = Request(environ)
        response = self._answer(request)
        if request.path in _SHARED:  # also for refusals, so that a page can distinguish them from a server that is down
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

    def _history(self, request: Request) -> Response:
        zones = request.args.getlist("zone") or ["default"]
        client_id = request.args.get("client_id")
        self._guard.check_subscribe(request, zones, client_id)
        limit = _number(request.args.get("limit", str(MAX_HISTORY)))
        if limit is None or not 0 < limit <= MAX_HISTORY:
            raise BadRequest(f"limit must be a number from 1 to {MAX_HISTORY}")
        since = _since(request.args.get("since", "oldest"))
        page = self._hub.history(zones, client_id=client_id, since=since, limit=limit)
        messages = [
            {name: value for name in _FIELDS if (value := getattr(one, name)) is not None} for one in page.messages
        ]
        gap = None if page.gap is None else {"reason": page.gap.reason, "missed": page.gap.missed}
        return _json({"messages": messages, "cursor": page.cursor, "has_more": page.has_more, "gap": gap})

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
        except HTTPException:  # numbers are public, but names and the reasons of failures are not
            return _json({"stats": {**stats, "failing": dict.fromkeys(stats["failing"], "")}})
        return _json({"stats": stats, **self._who(), "server": server_info(request.environ, self._hub)})

    def _metrics(self, request: Request) -> Response:
        zones, names = "zones" in request.args, True
        try:
            self._guard.check_inspect(request)
        except HTTPException:
            if zones:
                raise
            names = False  # numbers are public
        try:
            from ssehub.integrations.prometheus import exposition
        except ImportError:
            return _json({"error": "metrics need another package: pip install 'ssehub[prometheus]'"}, 501)
        text, content_type = exposition(self._hub, request.headers.get("Accept"), zones=zones, names=names)
        return Response(text, content_type=content_type)

    def _health(self, request: Request) -> Response:
        failing = sorted(self._hub.failing)  # without the reasons, because the endpoint is public
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
    """Yield the first zone of each session, then the second, and so on, so that no session hides the others."""
    for rank in range(max((len(one.zones) for one in sessions), default=0)):
        yield from ((one.zones[rank], one) for one in sessions if rank < len(one.zones))


def _session(one: Session | Connection) -> dict[str, Any]:
    who = {"client_id": one.client_id, "session_id": one.id, "connected_at": one.connected_at}
    return {**who, "process": one.process} if isinstance(one, Session) else who


def _since(text: str | None) -> Since:
    """Parse the query parameter ``since``: a number, or a text that is passed on."""
    number = _number(text)
    return text if number is None else number


def _number(text: str | None) -> int | None:
    """Parse a number; None if the text is not a number. Larger numbers than 999,999,999 are cut."""
    if text and text.isascii() and text.isdigit():
        return int(text.lstrip("0")[:9] or "0")
    return None


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
