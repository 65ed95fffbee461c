"""A hub as a service: streams, a way to send, and a console page to look at it all."""

from __future__ import annotations

import contextlib
import hmac
import importlib.resources
import ipaddress
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from werkzeug.exceptions import (
    BadRequest,
    Forbidden,
    HTTPException,
    RequestEntityTooLarge,
    Unauthorized,
)
from werkzeug.routing import Map, RequestRedirect, Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from ssehub.exceptions import HubClosed, LogError
from ssehub.log import ALL, Packet, Process, Session
from ssehub.log.packet import BROWSERS_TYPES
from ssehub.server.connection import Connection
from ssehub.wire import Message
from ssehub.wsgi.access import Authorize, check, check_origins, cors_headers
from ssehub.wsgi.hub import Hub
from ssehub.wsgi.script import shared_script
from ssehub.wsgi.server_info import server_info

#: Bytes of a request to /send at the most: as much as a :class:`~ssehub.Decoder` takes by default.
MAX_BODY = 1 << 20
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
#: What proxies add to a request. nginx adds none of it unless it is told to, but before 1.29.7 it speaks HTTP/1.0.
_PROXIED = frozenset(("forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"))
_TYPES = {"index.html": "text/html", "console.css": "text/css", "console.js": "text/javascript"}
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_FIELDS = frozenset(("data", "event", "id", "retry", "comment", "zone", "client_id", "broadcast"))
_RULES = Map(
    [
        Rule("/", endpoint="page", defaults={"name": "index.html"}, methods=["GET"]),
        Rule("/<any('console.css', 'console.js'):name>", endpoint="page", methods=["GET"]),
        Rule("/shared.js", endpoint="script", methods=["GET"]),
        Rule("/events", endpoint="events", methods=["GET"]),
        Rule("/send", endpoint="send", methods=["POST"]),
        Rule("/stats", endpoint="stats", methods=["GET"]),
        Rule("/metrics", endpoint="metrics", methods=["GET"]),
        Rule("/health", endpoint="health", methods=["GET"]),
    ]
)


def create_app(
    hub: Hub,
    *,
    token: str | None = None,
    public: bool = False,
    authorize: Authorize | None = None,
    origins: Collection[str] = (),
) -> App:
    """Make the service of a hub.

    ``GET /events?zone=&client_id=&since=`` is a stream; ``zone`` may be repeated. ``POST /send`` takes a form or a JSON
    object with ``data``, ``event``, ``id``, ``retry``, ``comment`` and ``zone``, ``client_id``, ``broadcast``, and
    answers with ``id`` and ``queued``. ``GET /stats`` and ``GET /health`` answer in JSON, ``GET /metrics`` answers
    Prometheus (with ``?zones=1`` also of each zone, for those who may look), ``GET /`` is the console.
    ``GET /shared.js`` is the script by which the tabs of a browser share one stream.
    What is refused is answered with a 4xx and ``{"error": reason}``, and nothing has happened.

    :param hub: whose streams these are.
    :param token: what ``Authorization: Bearer`` must say to send and to see who is connected. None: only requests
        made to a loopback name, from no page or from our own, may.
    :param public: True if the server can be reached from elsewhere; without a token nobody may send then.
    :param authorize: says who may follow which zones, send to them, and see who is there; see
        :data:`~ssehub.wsgi.access.Authorize`. It is asked before anything is registered. Without it everyone may
        follow, and the token or the loopback name says who may do the rest; who knows the token is not asked.
    :param origins: of other sites whose pages may follow, with their users' cookies: ``https://app.example``.
    :returns: a WSGI application.
    :raises ValueError: if the token is empty, or an origin is none.
    """
    return App(hub, token, public, authorize, check_origins(origins))


class App:
    """Be the WSGI application; see :func:`create_app`. Safe to call from any number of threads."""

    def __init__(
        self, hub: Hub, token: str | None, public: bool, authorize: Authorize | None, origins: frozenset[str]
    ) -> None:
        if token is not None and not token.strip():
            raise ValueError("the token is empty")
        self._hub = hub
        self._token = token
        self._public = public
        self._authorize = authorize
        self._origins = origins

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        request.max_content_length = MAX_BODY
        try:
            endpoint, arguments = _RULES.bind_to_environ(request.environ).match()
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
        zones = request.args.getlist("zone") or "default"
        since = request.args.get("since")
        digits = since.lstrip("0")[:9] or "0" if since and since.isascii() and since.isdigit() else ""
        count = int(digits) if digits else None
        client_id = request.args.get("client_id")
        if self._authorize is not None:
            check(self._authorize, request, "follow", zones if isinstance(zones, list) else [zones], client_id)
        since = since if count is None else count  # type: ignore[assignment]
        response = self._hub.connect(request, zone=zones, client_id=client_id, since=since)
        response.headers.update(cors_headers(request.headers.get("Origin"), self._origins))
        return response

    def _send(self, request: Request) -> Response:
        if self._authorize is None or self._knows_token(request):
            self._check_permission(request)
            packet = packet_of(_fields(request))
        else:
            packet = packet_of(_fields(request))
            _check_untrusted(packet.message)
            zones = ALL if packet.zone is ALL else [packet.zone]
            check(self._authorize, request, "send", zones, packet.client_id)
        receipt = self._hub.send_message(packet)
        return _json({"id": receipt.id, "queued": receipt.queued})

    def _stats(self, request: Request) -> Response:
        stats: dict[str, Any] = {"stats": self._hub.stats()}
        try:
            self._check_look(request)
        except HTTPException:
            return _json(stats)  # numbers are for everyone, names are not
        return _json({**stats, **self._who(), "server": server_info(request.environ, self._hub)})

    def _metrics(self, request: Request) -> Response:
        zones, names = "zones" in request.args, True
        try:
            self._check_look(request)
        except HTTPException:
            if zones:
                raise
            names = False  # numbers are for everyone
        try:
            from ssehub.integrations.prometheus import exposition
        except ImportError:
            return _json({"error": "metrics need another package: pip install 'ssehub[prometheus]'"}, 501)
        text, content_type = exposition(self._hub, request.headers.get("Accept"), zones=zones, names=names)
        return Response(text, content_type=content_type, headers={"Cache-Control": "no-store"})

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
        for one in sessions:
            who = {"client_id": one.client_id, "session_id": one.id, "connected_at": one.connected_at}
            if isinstance(one, Session):
                who["process"] = one.process
            for zone in one.zones:
                zones.setdefault(zone, []).append(who)
        return {"zones": dict(sorted(zones.items())), "processes": [one._asdict() for one in processes]}

    def _knows_token(self, request: Request) -> bool:
        given = request.headers.get("Authorization", "").partition(" ")
        # WSGI hands bytes over as latin-1 (PEP 3333); what a client sent in UTF-8 is compared in UTF-8.
        secret = given[2].encode("latin-1", "replace")
        token = self._token or ""
        return bool(token) and given[0].lower() == "bearer" and hmac.compare_digest(secret, token.encode())

    def _check_look(self, request: Request) -> None:
        """Let in who may see who is there."""
        if self._authorize is None or self._knows_token(request):
            self._check_permission(request)
        else:
            check(self._authorize, request, "look")

    def _check_permission(self, request: Request) -> None:
        """Let in who knows the token, or without one, who sits at this machine and is not some website."""
        if self._token is not None:
            if not self._knows_token(request):
                raise Unauthorized("this needs the token, as Authorization: Bearer ...")
            return
        if self._public:
            raise Forbidden("sending is closed: the server can be reached from elsewhere and has no token")
        if request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0" or any(map(_is_proxys, request.headers.keys())):
            raise Forbidden("HTTP/1.0, or through a proxy: who asks nobody knows, so the service needs a token")
        # Any page the user visits can make a browser post to a loopback address, under our own name or, after
        # rebinding a name of its own, under that.
        host = urlsplit(f"//{request.host}").hostname
        origin = request.headers.get("Origin")
        is_here = host in _LOOPBACK and _is_loopback(request.remote_addr)
        if not is_here or (origin is not None and origin != request.host_url.rstrip("/")):
            raise Forbidden("without a token only this machine may send, and no page but the console")


def _check_untrusted(message: Message) -> None:
    """Refuse what only those who know the token may send: it changes how every receiver reconnects."""
    given = [name for name in ("id", "retry") if getattr(message, name) is not None]
    if given:
        raise Forbidden(f"only who knows the token may choose {' and '.join(given)}")
    if message.event in BROWSERS_TYPES:
        raise Forbidden(f"only who knows the token may send the type {message.event!r}: browsers have an event of it")


def _is_proxys(name: str) -> bool:
    return name.lower() in _PROXIED or name.lower().startswith("x-forwarded-")


def _is_loopback(address: str | None) -> bool:
    """Tell whether a request came from this machine; over a Unix socket it has no address."""
    try:
        return not address or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _fields(request: Request) -> dict[str, Any]:
    """Take the fields of a form or a JSON object."""
    if request.mimetype == "application/json":
        try:
            fields = json.loads(request.get_data())
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"the body is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise BadRequest("the JSON body must be an object")
        return fields
    if request.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data"):
        return _convert(request.form.to_dict())
    raise BadRequest("the body must be a form or application/json")


def _convert(form: dict[str, str]) -> dict[str, Any]:
    """Give the fields of a form the types they have in JSON."""
    fields: dict[str, Any] = dict(form)
    if "retry" in fields:
        if not (form["retry"].isascii() and form["retry"].isdigit()):
            raise BadRequest(f"retry must be milliseconds in digits, not {form['retry'][:40]!r}")
        fields["retry"] = int(form["retry"][:18])
    if "broadcast" in fields:
        if form["broadcast"] not in ("true", "false"):
            raise BadRequest(f"broadcast must be true or false, not {form['broadcast'][:40]!r}")
        fields["broadcast"] = form["broadcast"] == "true"
    return fields


def packet_of(fields: dict[str, Any]) -> Packet:
    """Make a packet of what ``POST /send`` takes.

    :raises ValueError: if a value is unfit, or it addresses nobody.
    :raises TypeError: if a value has the wrong type.
    :raises BadRequest: if a field is unknown.
    """
    fields = dict(fields)
    unknown = sorted(str(name) for name in set(fields) - _FIELDS)
    if unknown:
        raise BadRequest(f"unknown field: {', '.join(unknown)[:200]}")
    route = {"zone": fields.pop("zone", ALL), "client_id": fields.pop("client_id", None)}
    # A zone alone is meant for all in it; nothing at all is nobody, as ever.
    route["broadcast"] = fields.pop("broadcast", route["zone"] is not ALL and route["client_id"] is None)
    return Packet(Message(**fields), **route)


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
    return Response(json.dumps(value), status, mimetype="application/json", headers={"Cache-Control": "no-store"})
