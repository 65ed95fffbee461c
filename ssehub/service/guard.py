"""Guard: decides which requests the service accepts, and what they may do."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from werkzeug.exceptions import Forbidden, HTTPException, InternalServerError, Unauthorized
from werkzeug.wrappers import Request

from ssehub.log import ALL, All, Packet
from ssehub.log.packet import BROWSERS_TYPES
from ssehub.logger import logger
from ssehub.wsgi.access import Action, Authorize, check

#: Headers that proxies add. nginx adds none by default, but before version 1.29.7 it uses HTTP/1.0.
_PROXIED = frozenset(("forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"))


class Guard:
    """Decides about requests; see :func:`ssehub.service.create_app` for the parameters. Thread-safe.

    A request is *trusted* if it has the token. If there is neither a token nor ``authorize``, and the service is not
    public, requests from this machine are trusted.

    :raises ValueError: if the token is empty.
    :raises TypeError: if ``hosts`` is a single string.
    """

    def __init__(
        self,
        token: str | None,
        public: bool,
        authorize: Authorize | None,
        origins: frozenset[str],
        hosts: Collection[str],
    ) -> None:
        if token is not None and not token.strip():
            raise ValueError("the token is empty")
        if isinstance(hosts, str):
            raise TypeError("hosts must be a list of names, not a single str")
        self._token = token
        self._public = public
        self._authorize = authorize
        self._origins = origins
        self._hosts = frozenset(host.lower() for host in hosts)

    def check_host(self, request: Request) -> None:
        """Refuse a request whose ``Host`` is not a name of the service.

        A page can make its own name resolve to this machine ("DNS rebinding"). Its requests are then same-origin for
        the browser, but their ``Host`` is the page's name.

        :raises Forbidden: if the service does not have this name.
        """
        host = _host_name(request)
        if (self._public and not self._hosts) or host in self._hosts or (not self._public and _is_local(host)):
            return
        raise Forbidden(
            f"this service is not called {host[:255]!r}; serve --allow-host and create_app(hosts=) allow a name"
        )

    def trusts(self, request: Request) -> bool:
        """Return whether a request may do everything. If False, ``authorize`` has to decide.

        :raises Unauthorized: if it does not have the token, and there is no ``authorize``.
        :raises Forbidden: if it is not from this machine, and there is neither a token nor an ``authorize``.
        """
        if self._knows_token(request):
            return True
        if self._authorize is not None:
            return False
        if self._token is not None:
            raise Unauthorized("this needs the token, as Authorization: Bearer")
        if self._public:
            raise Forbidden("no request may do this, because the service has no token and no authorize")
        if request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0" or any(map(_is_proxys, request.headers.keys())):
            raise Forbidden("the request came with HTTP/1.0 or through a proxy, so its sender is unknown: use a token")
        if not (_is_local(_host_name(request)) and _is_local(request.remote_addr or "")):
            raise Forbidden("without a token only this machine may do this")
        self._check_page(request)
        return True

    def check_subscribe(self, request: Request, zones: Sequence[str], client_id: str | None) -> float | None:
        """Check whether a request may follow zones, with the client id if there is one.

        :returns: the number of seconds for which it may, or None for no limit.
        :raises HTTPException: if it may not.
        """
        if self._authorize is None:
            if client_id is not None:  # the stream includes messages to this client alone
                try:
                    self.trusts(request)
                except HTTPException as error:
                    error.description = f"{error.description}. Without client_id, zones can be followed"
                    raise
        elif not self._knows_token(request):
            return self._ask(request, "subscribe", zones, client_id)
        return None

    def check_publish(self, request: Request, packet: Packet) -> None:
        """Check whether a request that is not trusted may send.

        :raises HTTPException: if it may not.
        """
        self._check_page(request)
        message = packet.message
        # These fields affect how every receiver reconnects.
        given = [name for name in ("id", "retry") if getattr(message, name) is not None]
        if given:
            raise Forbidden(f"a sender without the token cannot choose {' and '.join(given)}")
        if message.event in BROWSERS_TYPES:
            raise Forbidden(f"a sender without the token cannot use the type {message.event!r}, which browsers use")
        self._ask(request, "publish", ALL if packet.zone is ALL else [packet.zone], packet.client_id)

    def check_inspect(self, request: Request) -> None:
        """Check whether a request may see who is connected.

        :raises HTTPException: if it may not.
        """
        if not self.trusts(request):
            self._ask(request, "inspect")

    def _ask(
        self, request: Request, action: Action, zones: Sequence[str] | All = ALL, client_id: str | None = None
    ) -> float | None:
        assert self._authorize is not None
        try:
            return check(self._authorize, request, action, zones, client_id)
        except HTTPException:
            raise
        except Exception:  # an error of the application, which is not shown to clients
            logger.exception("authorize has failed")
            raise InternalServerError("the service could not determine whether this is allowed") from None

    def _knows_token(self, request: Request) -> bool:
        given = request.headers.get("Authorization", "").partition(" ")
        # WSGI decodes header bytes as latin-1 (PEP 3333). The comparison uses the bytes that the client has sent.
        secret = given[2].encode("latin-1", "replace")
        token = self._token or ""
        return bool(token) and given[0].lower() == "bearer" and hmac.compare_digest(secret, token.encode())

    def _check_page(self, request: Request) -> None:
        """Refuse a request that a page of another site makes a browser send with its user's cookies.

        Precedent: Go's ``http.CrossOriginProtection``. A request with neither ``Sec-Fetch-Site`` nor
        ``Origin`` is not from a browser.

        :raises Forbidden: if it is from a page that is neither of the service's own origin nor of an allowed one.
        """
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
        if origin in self._origins:
            return
        if site is not None:
            is_own = site in ("same-origin", "none")
        else:
            is_own = origin is None or origin.partition("://")[2] == request.host
        if not is_own:
            raise Forbidden("a page of another site may not do this")


def _is_proxys(name: str) -> bool:
    return name.lower() in _PROXIED or name.lower().startswith("x-forwarded-")


def _host_name(request: Request) -> str:
    """Return the name in the Host header, without the port."""
    try:
        return (urlsplit(f"//{request.host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_local(name: str) -> bool:
    """Return whether a name or an address is a loopback one."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
