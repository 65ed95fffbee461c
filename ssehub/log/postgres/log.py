"""PostgresLog: a log in a PostgreSQL database, which the processes of many machines share."""

from __future__ import annotations

from ssehub.log.postgres.link import Link
from ssehub.log.postgres.store import PostgresStore
from ssehub.log.postgres.tables import check_schema
from ssehub.log.sql.log import SQLLog
from ssehub.log.sql.prefix import check_prefix


class PostgresLog(SQLLog):
    """A log in a PostgreSQL database. Any number of processes on any machines can append to it and follow it.

    Each process keeps the newest entries in memory, and its clients are served from there. A process has one connection
    that follows the log, and one for everything else. Processes wake each other with ``NOTIFY``, and also look by
    themselves. Where notifications are not delivered, as behind PgBouncer in transaction mode, this is noticed and
    logged, and the table is read every 0.05 seconds instead. Needs PostgreSQL 13.

    The tables are created at the first use. If the application may not do this, another user does it with the command
    ``ssehub migrate``. If it is the database of your application, a message can be part of a transaction, see
    ``within`` in :meth:`ssehub.Hub.broadcast`. Triggers and other programs send with
    ``SELECT ssehub_send(zone, client_id, event, data)``.

    After a failover to a standby that lacks the newest entries, clients that had received them get a gap event.

    :param dsn: the address: a URL ``postgresql://user@host/database``, or a connection string of libpq. With several
        hosts, the one that accepts writes is used.
    :param name: the name of the log, with which the names of its tables begin: letters, digits and ``_``. Each hub in a
        database needs its own.
    :param size: the number of newest entries to keep. The table may hold 1,000 more, or a tenth of ``size``.
    :param zone_size: the number of newest entries of each zone that are protected, so that a busy zone does not push
        out the entries of a quiet one; see :class:`~ssehub.MemoryLog`.
    :param ttl: seconds that an entry is kept; None for no limit.
    :param timeout: the maximum number of seconds that an append may take before it raises :class:`~ssehub.LogError`.
        If a server cannot be reached at all, an attempt to connect may take two seconds more.
    :param lease: seconds after which other processes forget a process that was killed.
    :param schema: the schema of the tables; None for the first one of the search path.
    :param listen_dsn: another address of the same server, for the connection that follows the log. Give the server's
        own address here if ``dsn`` is that of a pooler that does not deliver notifications.
    :raises ValueError: if a number is out of range, or a name or an address is invalid.
    :raises TypeError: if an argument has the wrong type.
    """

    def __init__(
        self,
        dsn: str,
        *,
        name: str = "ssehub",
        size: int = 10_000,
        zone_size: int | None = None,
        ttl: float | None = None,
        timeout: float = 5.0,
        lease: float = 15.0,
        schema: str | None = None,
        listen_dsn: str | None = None,
    ) -> None:
        self._name = check_prefix(name)
        self._schema = check_schema(schema)
        super().__init__(size=size, zone_size=zone_size, ttl=ttl, timeout=timeout, lease=lease)
        self._link = Link(dsn, timeout)
        self._listen_link = self._link if listen_dsn is None else Link(listen_dsn, timeout)

    def make_store(self) -> PostgresStore:
        """Return the log's store for this process."""
        return PostgresStore(self._link, self._listen_link, self._name, self._schema, self._timeout)
