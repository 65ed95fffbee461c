"""RedisPresence: the presence of a hub on Redis.

Each process writes its connections to keys of its own (:mod:`ssehub.log.redis.ledger`), and renews its lease in a
thread. If a process is killed, its lease expires, and its keys are ignored from then on. The other processes delete
them: each time a process renews its lease, it checks the leases of a few others at random.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ssehub.background import Background
from ssehub.exceptions import LogError
from ssehub.log.packet import ALL, All
from ssehub.log.presence import Here, Local, Presence, Process, Session
from ssehub.log.redis.ledger import Found, Ledger
from ssehub.log.redis.link import ERRORS, Client
from ssehub.log.redis.pages import PAGE, Pages, read_client, read_everybody, read_metadata, record
from ssehub.logger import logger

#: Seconds that changes are collected before they are written. So a thousand clients that connect at once take one
#: write.
_GATHER = 0.005
#: The maximum number of seconds that a new connection waits until other processes can see it.
_SETTLE = 1.0
#: The number of other processes whose leases are checked each time the own lease is renewed.
_NEIGHBOURS = 3


class RedisPresence(Presence):
    """A hub's presence on Redis; see :class:`~ssehub.log.presence.Presence`.

    :param connect: returns the client that sends the commands. It must not retry them itself.
    :param name: the name of the log.
    :param lease: seconds after which a process that does not renew its lease is forgotten.
    """

    def __init__(self, connect: Callable[[], Client], name: str, lease: float) -> None:
        self._connect = connect
        self._lease = lease
        self._ledger = Ledger(connect, name, lease)
        self.process: str = secrets.token_hex(8)
        self._local: Local | None = None
        self._measure: Callable[[], Mapping[str, Any]]
        #: The statistics of this process when its lease was last renewed.
        self._stats: Mapping[str, Any] = {}
        self._changed = threading.Condition()
        #: The changes that are not written yet: by client, the sessions that were opened, or closed (None).
        self._dirty_clients: dict[str, dict[str, Here | None]] = {}
        self._dirty_zones: set[str] = set()
        #: The number of changes so far, and how many of them are written.
        self._noted = self._told = 0
        #: The pages of clients with many sessions. Used only in the thread.
        self._pages: dict[str, Pages] = {}
        self._closed = False
        #: Whether the keys of this process were deleted at the end.
        self._left = False
        #: Whether all connections have to be written, not only the changes.
        self._whole = True
        #: When the lease was last renewed (``time.monotonic()``).
        self._looked = 0.0
        self._background = Background(
            "ssehub-presence",
            self._keep,
            ("the presence on Redis cannot be updated", "the presence on Redis is back"),
            expected=(*ERRORS, LogError),
            on_failure=self._lose,
        )

    def start(self, local: Local, stats: Callable[[], Mapping[str, Any]]) -> None:
        """Start to publish the connections of this process. The thread starts with the first change."""
        self._local, self._measure = local, stats

    def changed(self, one: Here, is_here: bool) -> None:
        """Publish that a connection of this process was opened or closed. Does not block."""
        self._note(one.client_id, {one.id: one if is_here else None}, one.zones)

    def renoted(self, client_id: str) -> None:
        """Publish that the metadata of a client of this process was replaced. Does not block."""
        self._note(client_id, {}, ())

    def _note(self, client_id: str, sessions: Mapping[str, Here | None], zones: Sequence[str]) -> None:
        with self._changed:
            if self._closed or self._local is None:
                return
            self._dirty_clients.setdefault(client_id, {}).update(sessions)
            self._dirty_zones.update(zones)
            self._noted += 1
            self._changed.notify_all()
        with contextlib.suppress(RuntimeError):  # the next change tries again
            self._background.start()

    @property
    def failure(self) -> str | None:
        """Why changes cannot be written now; None if they can."""
        return None if self._background.failure is None else str(self._background.failure)

    def settle(self) -> bool:
        """Wait until the other processes can see all changes so far, a second at most."""
        with self._changed:
            noted = self._noted
            self._changed.wait_for(lambda: self._told >= noted or self._fails or self._closed, _SETTLE)
            return self._told >= noted

    def others(self, client_id: str | All = ALL, zone: str | All = ALL) -> list[Session]:
        """Return the sessions of other processes; see :meth:`Presence.others`."""
        with _asking():
            if client_id is ALL:
                everybody = self._ledger.clients(but=self.process)
                sessions = [session for one in everybody for session in read_everybody(one.process, one.part)]
            else:
                found = self._ledger.look(client_id, but=self.process)
                sessions = [one for process, *pages in found for one in read_client(process, client_id, *pages)]
        return [one for one in sessions if zone is ALL or zone in one.zones]

    def metadata(self, client_id: str) -> list[Any]:
        """Return a client's metadata at each of the other processes to which it is connected."""
        with _asking():
            found = self._ledger.look(client_id, self.process, first_only=True)
            return [metadata for _, page, _ in found for metadata in read_metadata(page)]

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections at other processes, with the number of connections in each."""
        zones: Counter[str] = Counter()
        with _asking():
            for one in self._ledger.zones(but=self.process):
                zones.update(_counts(one.part))
        return dict(zones)

    def processes(self) -> list[Process]:
        """Return all processes that serve streams."""
        with _asking():
            return [process for one in self._ledger.processes() if (process := _process(one)) is not None]

    def close(self, timeout: float) -> None:
        """Delete the keys of this process, and end the thread.

        :param timeout: the maximum number of seconds that this may take.
        """
        with self._changed:
            was_closed, self._closed = self._closed, True
            if self._fails:
                self._background.end()
            self._changed.notify_all()
        self._background.join(timeout)
        self._background.end()
        if self._noted and not self._left and not was_closed:
            logger.warning("other processes will see this one until its lease expires, because Redis does not answer")

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended. Call :meth:`close` first.

        :param timeout: the maximum number of seconds to wait.
        """
        self._background.join(timeout)

    @property
    def _fails(self) -> bool:
        return self._background.failure is not None

    # The methods below run in the thread.

    def _keep(self) -> None:
        """Wait for changes, or until the lease has to be renewed. Then write the changes."""
        self._wait()
        if self._closed:
            self._ledger.reap(self.process, is_gone=True)
            self._left = True
            self._background.end()
            return
        noted, clients, zones = self._take()
        there = self._tell(clients, zones)
        self._whole = not there  # this process was forgotten
        if there:
            with self._changed:
                self._told = noted
                self._changed.notify_all()

    def _lose(self) -> None:
        """After a failure, remember that all connections have to be written. Wake the threads that wait for a write."""
        self._whole = True
        with self._changed:
            self._changed.notify_all()

    def _wait(self) -> None:
        with self._changed:
            if not self._whole:
                patience = max(0.0, self._looked + self._lease / 3 - time.monotonic())
                self._changed.wait_for(lambda: self._closed or self._told < self._noted, patience)
        time.sleep(_GATHER)

    def _take(self) -> tuple[int, dict[str, dict[str, Here | None]], set[str]]:
        with self._changed:
            clients, self._dirty_clients = self._dirty_clients, {}
            zones, self._dirty_zones = self._dirty_zones, set()
            return self._noted, clients, zones

    def _tell(self, clients: dict[str, dict[str, Here | None]], zones: set[str]) -> bool:
        """Write the changes, or all connections.

        :returns: False if the lease had expired, so that all connections have to be written.
        """
        assert self._local is not None
        whole = self._whole
        if whole:
            clients = {one.client_id: {} for one in self._local.find()}
            self._pages.clear()
            zones = set(self._local.zones())
        is_time = time.monotonic() > self._looked + self._lease / 3
        if is_time:
            self._stats = self._measure()
            if self._stats["log_lag"] is None:  # Redis does not answer; do not wait for another timeout
                raise LogError("Redis does not answer")
        itself = json.dumps([socket.gethostname(), os.getpid(), self._local.count(), self._stats])
        records: dict[str, str] = {}
        for client_id, sessions in clients.items():
            records |= self._fields(client_id, sessions)
        known = self._ledger.tell(
            self.process, itself, records, {zone: self._local.count(zone) for zone in zones}, whole
        )
        if is_time:
            self._looked = time.monotonic()
            self._look_after_neighbours()
        return whole or known

    def _look_after_neighbours(self) -> None:
        for process in self._ledger.some(_NEIGHBOURS):
            self._ledger.reap(process)

    def _fields(self, client_id: str, sessions: Mapping[str, Here | None]) -> dict[str, str]:
        """Return the fields to write for a client whose sessions have changed."""
        assert self._local is not None
        pages = self._pages.get(client_id)
        if pages is not None:
            fields = pages.change(sessions)
            if len(pages) > PAGE // 2:
                return fields
            del self._pages[client_id]
            fields = pages.none()
        else:
            fields = {}
        found = self._local.find(client_id=client_id)
        if len(found) > PAGE:
            pages = self._pages[client_id] = Pages(client_id, found)
            return fields | pages.all()
        return {**fields, client_id: record(client_id, found, found[0].metadata) if found else ""}


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except LogError:
        raise
    except Exception as error:  # redis-py clients raise various errors if another thread closes them
        raise LogError(f"the connections of other processes cannot be read: {error}") from error


def _process(found: Found) -> Process | None:
    """Decode the content of ``alive``; None if it cannot be read, because another program wrote it."""
    try:
        host, pid, connections, stats = json.loads(found.alive)
        return Process(found.process, str(host), int(pid), int(connections), dict(stats))
    except Exception:
        logger.debug("the record of process %r cannot be read", found.process)
        return None


def _counts(part: Mapping[bytes, bytes]) -> dict[str, int]:
    """Decode the number of connections by zone. Skip values that another program has written."""
    counts = {zone.decode(errors="replace"): count for zone, count in part.items()}
    return {zone: int(count) for zone, count in counts.items() if count.isdigit()}
