"""URLs of logs: one form for every place that takes a log. The package of a log is imported when its URL is used."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from ssehub.log.base import Log
from ssehub.log.memory import MemoryLog

#: The known schemes, as shown in error texts.
_KNOWN = (
    "memory:, sqlite:FILE, postgresql://USER@HOST/DATABASE, redis://HOST:PORT/DB, rediss://, unix://PATH,"
    " redis+cluster://NODE"
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+]*):")


def open_log(url: str, **options: Any) -> Log:
    """Return the log with a URL. Nothing is opened or connected yet.

    ===========================================  ====================================================================
    URL                                          Log
    ===========================================  ====================================================================
    ``memory:``                                  :class:`~ssehub.MemoryLog`
    ``sqlite:hub.db``, ``sqlite:///hub.db``      :class:`~ssehub.SQLiteLog`, with a path relative to the folder of
                                                 the process
    ``sqlite:/srv/hub.db``                       :class:`~ssehub.SQLiteLog`, with an absolute path;
                                                 ``sqlite:////srv/hub.db`` is the same
    ``postgresql://user@host/database``          :class:`~ssehub.PostgresLog`
    ``redis://``, ``rediss://``, ``unix://``     :class:`~ssehub.RedisLog`
    ``redis+cluster://``, ``rediss+cluster://``  :class:`~ssehub.RedisLog` on a cluster
    ===========================================  ====================================================================

    :param options: other arguments of the log, such as ``size`` and ``name``.
    :raises ValueError: if the URL is unknown or invalid, an option is unknown, or the log's package is not installed.
    :raises TypeError: if the URL is not a string, or an option has the wrong type.
    """
    if not isinstance(url, str):
        raise TypeError(f"the URL of a log must be a str, not {type(url).__name__}")
    scheme = _SCHEME.match(url)
    make = _MAKERS.get(scheme[1].lower()) if scheme else None
    if make is None:
        raise ValueError(f"{_fault_of(scheme and scheme[1])}; the logs are {_KNOWN}")
    kind, place = make(url)
    unknown = sorted(options.keys() - inspect.signature(kind).parameters.keys())
    if unknown:
        raise ValueError(f"a {kind.__name__} has no option {', '.join(unknown)}")
    log: Log = kind(*place, **options)
    return log


def _fault_of(scheme: str | None) -> str:
    """Return why a URL makes no log. The rest of the URL is not shown, because it may contain a password."""
    if not scheme:
        return "the URL of a log begins with a scheme, as in sqlite:hub.db for a file"
    hint = "; for PostgreSQL, leave out the + and the driver" if scheme.startswith("postgresql+") else ""
    return f"no log has the scheme {scheme!r}{hint}"


def sqlite_path(url: str) -> str:
    """Return the path in the URL of a log in a SQLite file.

    :raises ValueError: if the URL has a host, options, or no path.
    """
    path = url.partition(":")[2]
    if path.startswith("//"):
        if not path.startswith("///"):
            raise ValueError("a SQLite file has no host: write sqlite:hub.db, or sqlite:////srv/hub.db for /srv/hub.db")
        path = path[3:]
    if not path:
        raise ValueError("the URL of a SQLite log needs a file: sqlite:hub.db")
    if "?" in path:
        raise ValueError("the URL of a SQLite log has no options: write SQLiteLog(path, size=...), or set LOG_OPTIONS")
    return path


def _memory(url: str) -> tuple[Callable[..., Log], tuple[str, ...]]:
    if url.partition(":")[2].strip("/"):
        raise ValueError("the URL of a log in memory is memory:")
    return MemoryLog, ()


def _sqlite(url: str) -> tuple[Callable[..., Log], tuple[str, ...]]:
    from ssehub.log.sqlite import SQLiteLog

    return SQLiteLog, (sqlite_path(url),)


def _postgres(url: str) -> tuple[Callable[..., Log], tuple[str, ...]]:
    try:
        from ssehub.log.postgres import PostgresLog
    except ImportError:
        raise ValueError("a log in PostgreSQL needs another package: pip install 'ssehub[postgres]'") from None
    return PostgresLog, (url,)


def _redis(url: str) -> tuple[Callable[..., Log], tuple[str, ...]]:
    try:
        from ssehub.log.redis import RedisLog
    except ImportError:
        raise ValueError("a log on Redis needs another package: pip install 'ssehub[redis]'") from None
    return RedisLog, (url,)


_MAKERS: dict[str, Callable[[str], tuple[Callable[..., Log], tuple[str, ...]]]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "postgresql": _postgres,
    "postgres": _postgres,
    "redis": _redis,
    "rediss": _redis,
    "unix": _redis,
    "redis+cluster": _redis,
    "rediss+cluster": _redis,
}
