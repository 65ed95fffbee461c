"""SQLPresence: the presence of a hub in a SQL database.

=============  =========================================================================================================
Table          Content
=============  =========================================================================================================
``processes``  For each process: its host, pid, connections and statistics as JSON, its running productions as JSON, and
               when its lease expires.
``clients``    For each client of a process: its metadata as JSON.
``sessions``   For each session of a process: its client, its zones as a JSON array, and when it began.
``zones``      For each zone of a process: the number of its connections.
=============  =========================================================================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssehub.log.packet import ALL, All
from ssehub.log.presence import Here, Process, Session
from ssehub.log.shared_presence import Changes, SharedPresence, asking, process_of
from ssehub.log.sql.store import Statement, Store
from ssehub.logger import logger

#: The tables with the records of a process.
_TABLES = ("sessions", "clients", "zones", "processes")


class SQLPresence(SharedPresence):
    """A hub's presence in a SQL database; see :class:`~ssehub.log.presence.Presence`.

    :param store: the tables.
    :param lease: seconds after which a process that does not renew its lease is forgotten.
    """

    def __init__(self, store: Store, lease: float) -> None:
        super().__init__(store.name, lease, store.errors)
        self._tables = store
        self._prefix = store.prefix
        self._others = (
            f"JOIN {self._prefix}_processes p ON p.process = o.process WHERE p.expires > {store.now} AND p.process <> ?"
        )

    def others(self, client_id: str | All = ALL, zone: str | All = ALL) -> list[Session]:
        """Return the sessions of other processes; see :meth:`Presence.others`."""
        statement = (
            "SELECT o.process, o.session_id, o.client_id, o.zones, o.connected_at, c.metadata"
            f" FROM {self._prefix}_sessions o"
            f" LEFT JOIN {self._prefix}_clients c ON c.process = o.process AND c.client_id = o.client_id {self._others}"
        )
        parameters = [self.process]
        if client_id is not ALL:
            statement += " AND o.client_id = ?"
            parameters.append(client_id)
        with asking():
            found = [session for row in self._tables.query(statement, parameters) for session in _session(*row)]
        return [one for one in found if zone is ALL or zone in one.zones]

    def metadata(self, client_id: str) -> list[Any]:
        """Return a client's metadata at each of the other processes to which it is connected."""
        statement = f"SELECT o.metadata FROM {self._prefix}_clients o {self._others} AND o.client_id = ?"
        with asking():
            rows = self._tables.query(statement, (self.process, client_id))
        return [data for (text,) in rows for data in _decoded(text)]

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections at other processes, with the number of connections in each."""
        statement = f"SELECT o.zone, sum(o.connections) FROM {self._prefix}_zones o {self._others} GROUP BY o.zone"
        with asking():
            rows = self._tables.query(statement, (self.process,))
        return {zone: int(count) for zone, count in rows if isinstance(zone, str) and 0 < count < math.inf}

    def processes(self) -> list[Process]:
        """Return all processes that serve streams."""
        statement = f"SELECT process, itself FROM {self._prefix}_processes WHERE expires > {self._tables.now}"
        with asking():
            found = [process_of(*row) for row in self._tables.query(f"{statement} ORDER BY process")]
        return [one for one in found if one is not None]

    # The methods below run in the thread.

    def write(self, itself: str, productions: str, changes: Changes, zones: Mapping[str, int], anew: bool) -> bool:
        """Write changes of this process, and renew its lease; see :meth:`SharedPresence.write`."""
        processes = f"{self._prefix}_processes"
        expires = f"{self._tables.now} + ?"
        statements: list[Statement] = [
            (f"UPDATE {processes} SET itself = ?, productions = ?, expires = {expires} WHERE process = ?",
             [(itself, productions, self._lease, self.process)]),
        ]  # fmt: skip
        if anew:
            statements += self._deletion("= ?", (self.process,))
            statements.append(
                (f"INSERT INTO {processes} (process, itself, productions, expires) VALUES (?, ?, ?, {expires})",
                 [(self.process, itself, productions, self._lease)])
            )  # fmt: skip
        statements += self._changes(changes)
        statements += self._upsert(
            "zones", ("zone",), ("connections",), [(zone, count) for zone, count in zones.items() if count]
        )
        gone = [(self.process, zone) for zone, count in zones.items() if not count]
        statements.append((f"DELETE FROM {self._prefix}_zones WHERE process = ? AND zone = ?", gone))
        known = self._tables.execute(statements)[0]
        return bool(known)

    def expired(self) -> list[tuple[str, str]]:
        """Return the processes whose leases have expired, each with its productions as JSON."""
        statement = f"SELECT process, productions FROM {self._prefix}_processes WHERE expires <= {self._tables.now}"
        return [(str(process), str(productions or "")) for process, productions in self._tables.query(statement)]

    def delete_expired(self, processes: Sequence[str]) -> None:
        """Delete the records of processes, if their leases have expired.

        They are marked first, which locks their rows. So if one of them renews its lease at this moment, it waits, and
        then learns that it was forgotten.
        """
        table, named = f"{self._prefix}_processes", f"process IN ({', '.join('?' * len(processes))})"
        mark = f"UPDATE {table} SET expires = 0 WHERE expires <= {self._tables.now} AND {named}"
        marked = f"IN (SELECT process FROM {table} WHERE expires = 0 AND {named})"
        self._tables.execute([(mark, [tuple(processes)]), *self._deletion(marked, tuple(processes))])

    def delete_own(self) -> None:
        """Delete the records of this process."""
        self._tables.execute(self._deletion("= ?", (self.process,)))

    def _changes(self, changes: Changes) -> Iterator[Statement]:
        opened = [one for sessions in changes.values() for one in sessions.values() if one is not None]
        closed = [(self.process, id) for sessions in changes.values() for id, one in sessions.items() if one is None]
        yield from self._upsert(
            "sessions",
            ("session_id",),
            ("client_id", "zones", "connected_at"),
            [(one.id, one.client_id, json.dumps(one.zones), one.connected_at) for one in opened],
        )
        yield (f"DELETE FROM {self._prefix}_sessions WHERE process = ? AND session_id = ?", closed)
        yield from self._upsert("clients", ("client_id",), ("metadata",), list(self._metadata(changes)))
        # Only these clients are looked at: to look at all would take as long as the process has clients.
        left = [(self.process, id) * 2 for id, sessions in changes.items() if None in sessions.values()]
        others = f"SELECT 1 FROM {self._prefix}_sessions WHERE process = ? AND client_id = ?"
        yield (
            f"DELETE FROM {self._prefix}_clients WHERE process = ? AND client_id = ? AND NOT EXISTS ({others})",
            left,
        )

    def _metadata(self, changes: Changes) -> Iterator[tuple[str, str]]:
        assert self._local is not None
        for client_id in changes:
            found = self._local.find(client_id=client_id)
            if found:
                yield client_id, _json(client_id, found[0])

    def _upsert(self, table: str, key: tuple[str, ...], columns: tuple[str, ...], rows: list[Any]) -> list[Statement]:
        """Return the statement that writes rows of this process, over old rows with the same key."""
        names = ", ".join(("process", *key, *columns))
        marks = ", ".join("?" * (1 + len(key) + len(columns)))
        update = ", ".join(f"{column} = excluded.{column}" for column in columns)
        statement = (
            f"INSERT INTO {self._prefix}_{table} ({names}) VALUES ({marks})"
            f" ON CONFLICT (process, {', '.join(key)}) DO UPDATE SET {update}"
        )
        return [(statement, [(self.process, *row) for row in rows])]

    def _deletion(self, which: str, parameters: tuple[str, ...]) -> list[Statement]:
        return [(f"DELETE FROM {self._prefix}_{table} WHERE process {which}", [parameters]) for table in _TABLES]


def _json(client_id: str, one: Here) -> str:
    try:
        return json.dumps(one.metadata)
    except (TypeError, ValueError) as error:  # the application has changed the metadata after it was checked
        logger.error("the metadata of client %r is not shared with other processes: %s", client_id, error)
        return "null"


def _decoded(text: Any) -> list[Any]:
    """Decode metadata; an empty list if another program wrote it, and it cannot be read."""
    try:
        return [json.loads(text)]
    except Exception:
        logger.debug("the metadata of a client cannot be read")
        return []


def _session(
    process: str, session_id: str, client_id: str, zones: str, connected_at: float, metadata: str | None
) -> list[Session]:
    """Decode a session; an empty list if another program wrote the row, and it cannot be read."""
    try:
        names = tuple(map(str, json.loads(zones)))
        (known,) = [None] if metadata is None else _decoded(metadata) or [None]
        return [Session(str(session_id), str(client_id), names, float(connected_at), known, str(process))]
    except Exception:
        logger.debug("a session of process %r cannot be read", process)
        return []
