"""Link: the address of a PostgreSQL server, and the settings of connections to it."""

from __future__ import annotations

import math
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ssehub.log.postgres.connection import Connection

#: The exceptions of a connection. OSError: the name of the host cannot be resolved.
ERRORS = (psycopg.Error, OSError)
#: Settings that the address does not need to have. With these, a connection to a machine that is gone is noticed within
#: 25 seconds, also while it is not used. https://www.postgresql.org/docs/current/libpq-connect.html
_DEFAULTS = {
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "application_name": "ssehub",
}
#: libpq's minimum, in seconds.
_SHORTEST = 2


class Link:
    """The address of a server, or of several of which one is the primary. Immutable. Opens no connection itself.

    :param dsn: a URL, or a connection string of libpq.
    :param timeout: the number of seconds within which something must have been tried at all servers.
    :raises ValueError: if the address is invalid.
    :raises TypeError: if it is not a string.
    """

    def __init__(self, dsn: str, timeout: float) -> None:
        if not isinstance(dsn, str):
            raise TypeError(f"the address must be a str, not {type(dsn).__name__}")
        try:
            given = conninfo_to_dict(dsn)
        except (psycopg.Error, UnicodeError):  # not chained: its text may contain a part of the password
            raise ValueError(
                "not the address of a PostgreSQL server. It is like postgresql://user@host:5432/database or"
                " 'host=... dbname=...', and in a password of a URL / ? # @ and % are written %2F %3F %23 %40 and %25"
            ) from None
        hosts = 1 + str(given.get("host") or given.get("hostaddr") or "").count(",")
        self._settings: dict[str, Any] = {
            **_DEFAULTS,
            "connect_timeout": max(_SHORTEST, math.floor(timeout / (hosts + 1))),
            **given,
            "client_encoding": "UTF8",
        }
        if hosts > 1:
            self._settings.setdefault("target_session_attrs", "read-write")

    def connect(self) -> Connection:
        """Return a new connection, which commits after each statement.

        Statements are not prepared, because a pooler may execute each of them on another connection.
        """
        return Connection.connect("", autocommit=True, prepare_threshold=None, **self._settings)


def reason_of(error: BaseException) -> str:
    """Return an error's text in one line, without the details that the server adds."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return primary or next(iter(str(error).strip().splitlines()), type(error).__name__)
