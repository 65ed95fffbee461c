"""RedisPresence: the presence of a hub, kept on Redis.

What a process that was killed has left is nobody's from the end of its lease on; the others, which look after each
other at random, then clear it away.
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

#: Seconds that changes are gathered before they are written: a thousand clients that come at once are one write.
_GATHER = 0.005
#: Seconds a new connection waits for the others to be told of it.
_SETTLE = 1.0
#: Neighbours to look after each time the lease is renewed.
_NEIGHBOURS = 3


class RedisPresence(Presence):
    """Keep a hub's presence on Redis; see :class:`~ssehub.log.presence.Presence`.

    :param connect: gives the client to send commands with, which does not try again by itself.
    :param name: the name of the log.
    :param lease: seconds after which a process that says nothing is forgotten.
    """

    def __init__(self, connect: Callable[[], Client], name: str, lease: float) -> None:
        self._connect = connect
        self._lease = lease
        self._ledger = Ledger(connect, name, lease)
        self.process: str = secrets.token_hex(8)
        self._local: Local | None = None
        self._measure: Callable[[], Mapping[str, Any]]
        #: What that gave when the lease was last renewed.
        self._stats: Mapping[str, Any] = {}
        self._changed = threading.Condition()
        #: By client, the sessions that have come, or are gone (None).
        self._dirty_clients: dict[str, dict[str, Here | None]] = {}
        self._dirty_zones: set[str] = set()
        #: Changes noted, and how many of them the others can see.
        self._noted = self._told = 0
        #: Of clients with many sessions. Only the thread uses them.
        self._pages: dict[str, Pages] = {}
        self._closed = False
        #: Whether the others have forgotten this process.
        self._left = False
        #: Whether everything has to be written, and not only what has changed.
        self._whole = True
        #: When the lease was last renewed (``time.monotonic()``).
        self._looked = 0.0
        self._background = Background(
            "ssehub-presence",
            self._keep,
            ("the presence on Redis cannot be kept", "the presence on Redis is back"),
            expected=(*ERRORS, LogError),
            on_failure=self._lose,
        )

    def start(self, local: Local, stats: Callable[[], Mapping[str, Any]]) -> None:
        """Begin to tell the others, in a thread that starts with the first change."""
        self._local, self._measure = local, stats

    def changed(self, one: Here, is_here: bool) -> None:
        """Note that a connection of this process has come or gone."""
        self._note(one.client_id, {one.id: one if is_here else None}, one.zones)

    def renoted(self, client_id: str) -> None:
        """Note that the metadata of a client of this process was replaced."""
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
        """Why the others cannot be told now; None if they can."""
        return None if self._background.failure is None else str(self._background.failure)

    def settle(self) -> bool:
        """Wait until the others can see what has changed so far; a second at the most."""
        with self._changed:
            noted = self._noted
            self._changed.wait_for(lambda: self._told >= noted or self._fails or self._closed, _SETTLE)
            return self._told >= noted

    def others(self, client_id: str | All = ALL, zone: str | All = ALL) -> list[Session]:
        """Return the sessions at other processes."""
        with _asking():
            if client_id is ALL:
                everybody = self._ledger.clients(but=self.process)
                sessions = [session for one in everybody for session in read_everybody(one.process, one.part)]
            else:
                found = self._ledger.look(client_id, but=self.process)
                sessions = [one for process, *pages in found for one in read_client(process, client_id, *pages)]
        return [one for one in sessions if zone is ALL or zone in one.zones]

    def metadata(self, client_id: str) -> list[Any]:
        """Return what each of the other processes has noted about a client."""
        with _asking():
            found = self._ledger.look(client_id, self.process, first_only=True)
            return [metadata for _, page, _ in found for metadata in read_metadata(page)]

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections at other processes, and how many."""
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
        """Have the others forget this process.

        :param timeout: seconds that it may take.
        """
        with self._changed:
            was_closed, self._closed = self._closed, True
            if self._fails:
                self._background.end()
            self._changed.notify_all()
        self._background.join(timeout)
        self._background.end()
        if self._noted and not self._left and not was_closed:
            logger.warning("the others will see this process until its lease has run out: the server does not answer")

    def join(self, timeout: float) -> None:
        """Wait for the thread, once it is closed.

        :param timeout: seconds to wait at the most.
        """
        self._background.join(timeout)

    @property
    def _fails(self) -> bool:
        return self._background.failure is not None

    # What follows runs in the thread.

    def _keep(self) -> None:
        """Wait for changes, or until the lease has to be renewed, and write them."""
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
        """Note that everything has to be written, and let go of those that wait for it."""
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
        """Write what has changed, or all; False if this process was forgotten, so that all has to be written."""
        assert self._local is not None
        whole = self._whole
        if whole:
            clients = {one.client_id: {} for one in self._local.find()}
            self._pages.clear()
            zones = set(self._local.zones())
        is_time = time.monotonic() > self._looked + self._lease / 3
        if is_time:
            self._stats = self._measure()
            if self._stats["log_lag"] is None:  # the server does not answer: do not wait for it once more
                raise LogError("the log cannot be asked")
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
        """Return the fields to write of a client, some of whose sessions have come or gone."""
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
    except Exception as error:  # a client that is closed meanwhile raises this and that
        raise LogError(f"who is connected elsewhere cannot be found out: {error}") from error


def _process(found: Found) -> Process | None:
    """Read what a process says of itself; None if another program has written it."""
    try:
        host, pid, connections, stats = json.loads(found.alive)
        return Process(found.process, str(host), int(pid), int(connections), dict(stats))
    except Exception:
        logger.debug("what process %r says of itself cannot be read", found.process)
        return None


def _counts(part: Mapping[bytes, bytes]) -> dict[str, int]:
    """Read the numbers of connections by zone; what another program has written is left out."""
    counts = {zone.decode(errors="replace"): count for zone, count in part.items()}
    return {zone: int(count) for zone, count in counts.items() if count.isdigit()}
