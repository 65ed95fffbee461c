"""Edge: checks which version of HTTP browsers use to the public address."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from ssehub.tools.doctor.finding import Finding, ok, skip, warn
from ssehub.tools.doctor.session import Session

_CHECK = "http/2"
_SIX = "a browser opens six connections to a host over all its tabs, and each stream uses one: the seventh tab waits"
_FIX = "HTTPS with HTTP/2 in front (nginx 1.25.1: http2 on; before: listen 443 ssl http2;)"


def ask(session: Session) -> Iterator[Finding]:
    """Check with a TLS handshake. Browsers use HTTP/2 if the server offers it, and never over plain HTTP."""
    parts = urlsplit(session.target.url)
    if session.main is not None and session.main.ended is not None and session.main.response is None:
        return  # there is no connection
    if parts.scheme != "https":
        yield warn(_CHECK, f"plain HTTP, over which browsers only use HTTP/1.1: {_SIX}", _FIX)
        return
    try:
        chosen = _negotiate(str(parts.hostname), parts.port or 443, session.patience)
    except OSError as error:
        yield skip(_CHECK, f"the handshake failed: {error}")
        return
    response = session.main.response if session.main is not None else None
    if chosen != "h2":
        yield warn(_CHECK, f"HTTP/1.1 only: {_SIX}", _FIX)
    elif response is not None and "gunicorn" in response.headers.get("Server", "").lower():
        seen = "gunicorn itself serves HTTP/2, and with gthread a stream blocks all other requests on its connection"
        yield warn(_CHECK, seen, "HTTP/2 in a proxy, and HTTP/1.1 from there to gunicorn")
    else:
        yield ok(_CHECK, "HTTP/2: all tabs share one connection")


def _negotiate(host: str, port: int, timeout: float) -> str | None:
    """Return which of HTTP/2 and HTTP/1.1 the server chooses. Its certificate is not verified here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((host, port), timeout) as plain,
        context.wrap_socket(plain, server_hostname=host) as connected,
    ):
        return connected.selected_alpn_protocol()
