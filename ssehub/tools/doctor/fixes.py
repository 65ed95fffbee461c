"""Fixes: the settings that fix a problem, by server and proxy."""

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
    "caddy": "Caddy: exclude text/event-stream from encode",
}
_MIDDLEWARE = (
    "a middleware: leave out text/event-stream (Flask-Compress: COMPRESS_MIMETYPES; Django's GZipMiddleware:"
    ' Hub(headers={"Content-Encoding": "identity"}))'
)
_DETACH = "Hub(detach=True), so that streams use no thread of the server"
#: The fix for each reason why a stream stays on a thread. The first entry whose text is in the reason applies.
_HOLDING = (
    ("detach=None", _DETACH),
    ("detach=False", "Hub(detach=True), or Hub() without detach if the server has one thread for all requests"),
    ("does not show the client's socket", "a server that shows it: gunicorn with any worker"),
    ("TLS", "TLS in a proxy, nginx for instance, and plain HTTP from there to the server"),
    ("HTTP/2", "HTTP/2 in a proxy, nginx for instance, and HTTP/1.1 from there to the server"),
    ("compresses", f"exclude the stream's path from compression; {_MIDDLEWARE}"),
    ("has a length", "exclude the stream's path from the middleware that collects responses"),
    ("changes the body", "exclude the stream's path from the middleware that changes bodies"),
    ("content type", "exclude the stream's path from the middleware that changes the Content-Type"),
    ("has not written", "a server that writes each chunk at once: gunicorn with any worker"),
    ("no descriptor", "more open files: ulimit -n 65536, or LimitNOFILE=65536 with systemd"),
    ("no thread can be started", "more threads for the process: ulimit -u, or TasksMax= with systemd"),
    ("epoll", "Linux: other systems have no epoll"),
)
_IDLE = {
    "nginx": "nginx: proxy_read_timeout 1h; in the stream's location",
    "apache": "Apache: timeout=3600 at the ProxyPass of the stream, or ProxyTimeout 3600",
    "cloudflare": "Cloudflare cuts connections that are silent for 100 s",
    "awselb": "AWS: the load balancer's idle_timeout.timeout_seconds",
    "heroku": "Heroku cuts connections that are silent for 55 s",
}


def proxy_of(headers: Mapping[str, str]) -> str:
    """Return the name of the known proxy that a response came through, by its headers; empty if no proxy is known."""
    said = f"{headers.get('Server', '')} {headers.get('Via', '')}".lower()
    marks = {"awselb": "awselb", "vegur": "heroku", "heroku": "heroku", "openresty": "nginx"}
    marks |= {name: name for name in ("nginx", "apache", "caddy", "cloudflare")}
    return next((name for mark, name in marks.items() if mark in said), "")


def against_buffering(proxy: str) -> str:
    """Return the setting that stops a proxy from buffering."""
    return _BUFFERING.get(proxy) or "; ".join(_BUFFERING.values())


def against_compression(proxy: str) -> str:
    """Return the setting that stops a proxy from compressing a stream."""
    return "; ".join(filter(None, (_COMPRESSION.get(proxy, ""), _MIDDLEWARE)))


def against_idle_limit(proxy: str, seconds: float) -> str:
    """Return the setting that stops a proxy from cutting a silent stream."""
    known = _IDLE.get(proxy) or f"{_IDLE['nginx']} (or the same setting of your proxy)"
    return f"{known}; or a heartbeat below {seconds:.3g} s: Hub(heartbeat={max(0.1, round(seconds / 2, 1)):g})"


def against_holding(reason: str) -> str:
    """Return the change after which streams use no thread of the server.

    :param reason: why they use one; empty if it is not known.
    """
    return next((fix for mark, fix in _HOLDING if mark in reason), _DETACH)
