"""Remedies: what to write into which configuration."""

from __future__ import annotations

from collections.abc import Mapping

_BUFFERING = {
    "nginx": "nginx: proxy_buffering off; in the stream's location, or let the application's header"
    " X-Accel-Buffering: no through (no proxy_ignore_headers X-Accel-Buffering)",
    "apache": "Apache: flushpackets=on at the ProxyPass of the stream",
    "caddy": "Caddy: flush_interval -1 in reverse_proxy",
}
_COMPRESSION = {
    "nginx": "nginx: gzip off; in the stream's location, or take text/event-stream out of gzip_types",
    "apache": "Apache: SetEnv no-gzip 1 in the stream's Location",
    "caddy": "Caddy: leave text/event-stream out of what encode matches",
}
_MIDDLEWARE = (
    "a middleware: leave out text/event-stream (Flask-Compress: COMPRESS_MIMETYPES; Django's GZipMiddleware:"
    ' Hub(headers={"Content-Encoding": "identity"}))'
)
_DETACH = "Hub(detach=True), so that streams hold no thread"
#: What to do about each reason for which a stream stays on a thread; the first that is in its text counts.
_HOLDING = (
    ("detach=None", _DETACH),
    ("detach=False", "Hub(detach=True), or Hub() without detach where the server has one thread for all requests"),
    ("does not show the client's socket", "a server that shows it: gunicorn with any worker"),
    ("TLS", "TLS in a proxy, nginx for instance, and plain HTTP from there to the server"),
    ("HTTP/2", "HTTP/2 in a proxy, nginx for instance, and HTTP/1.1 from there to the server"),
    ("compresses", f"exclude the stream's path from what compresses; {_MIDDLEWARE}"),
    ("has a length", "exclude the stream's path from the middleware that collects responses"),
    ("changes the body", "exclude the stream's path from the middleware that changes bodies"),
    ("content type", "exclude the stream's path from the middleware that changes the Content-Type"),
    ("has not written", "a server that writes each chunk when it gets it: gunicorn with any worker"),
    ("no descriptor", "more open files: ulimit -n 65536, or LimitNOFILE=65536 with systemd"),
    ("no thread can be started", "more threads for the process: ulimit -u, or TasksMax= with systemd"),
    ("epoll", "Linux: other systems do not have what this needs"),
)
_IDLE = {
    "nginx": "nginx: proxy_read_timeout 1h; in the stream's location",
    "apache": "Apache: timeout=3600 at the ProxyPass of the stream, or ProxyTimeout 3600",
    "cloudflare": "Cloudflare cuts what is silent for 100 s",
    "awselb": "AWS: the load balancer's idle_timeout.timeout_seconds",
    "heroku": "Heroku cuts what is silent for 55 s",
}


def proxy_of(headers: Mapping[str, str]) -> str:
    """Return which known proxy an answer came through, as far as its headers tell; else nothing."""
    said = f"{headers.get('Server', '')} {headers.get('Via', '')}".lower()
    marks = {"awselb": "awselb", "vegur": "heroku", "heroku": "heroku", "openresty": "nginx"}
    marks |= {name: name for name in ("nginx", "apache", "caddy", "cloudflare")}
    return next((name for mark, name in marks.items() if mark in said), "")


def against_buffering(proxy: str) -> str:
    """Say how to have a proxy pass on what it gets."""
    return _BUFFERING.get(proxy) or "; ".join(_BUFFERING.values())


def against_compression(proxy: str) -> str:
    """Say how to have a stream left as it is."""
    return "; ".join(filter(None, (_COMPRESSION.get(proxy, ""), _MIDDLEWARE)))


def against_idle_limit(proxy: str, seconds: float) -> str:
    """Say how to have a silent stream live."""
    known = _IDLE.get(proxy) or f"{_IDLE['nginx']} (or what your proxy calls it)"
    return f"{known}; or a heartbeat below {seconds:.3g} s: Hub(heartbeat={max(0.1, round(seconds / 2, 1)):g})"


def against_holding(reason: str) -> str:
    """Say how to have streams hold no thread of the server.

    :param reason: why they do; empty if it is not known.
    """
    return next((fix for mark, fix in _HOLDING if mark in reason), _DETACH)
