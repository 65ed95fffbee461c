"""RedisPresence: the presence of a hub, kept on Redis.

What a process that was killed has left is nobody's from the end of its lease on; the others, which look after each
other at random, then clear it away.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ssehub.exceptions import LogError
from ssehub.log.packet import ALL, All
from ssehub.log.presence import Local, Presence, Process, Session
from ssehub.log.redis.ledger import Ledger
from ssehub.log.redis.link import ERRORS, Client, disconnect

logger = logging.getLogger("ssehub")

#: Seconds that changes are gathered before they are written: a thousand clients that come at once are one write.
_GATHER = 0.005
#: Seconds a new connection waits for the others to be told of it.
_SETTLE = 1.0
#: Seconds that leaving may take.
_LEAVE = 1.0
#: Seconds between attempts while the server is away.
_AGAIN = 0.5

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
        self.process = secrets.token_hex(8)
        self._local: Local | None = None
        self._measure: Callable[[], Mapping[str, Any]]
        #: What that gave when the lease was last renewed.
        self._stats: Mapping[str, Any] = {}
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._dirty_clients: set[str] = set()
        self._dirty_zones: set[str] = set()
        #: Changes noted, and how many of them the others can see.
        self._noted = self._told = 0
        self._failing = self._closed = False
        #: When it was last looked after the neighbours (``time.monotonic()``).
        self._looked = 0.0

    def start(self, local: Local, stats: Callable[[], Mapping[str, Any]]) -> None:
        """Begin to tell the others, in a thread that starts with the first change."""
        self._local, self._measure = local, stats

    def changed(self, client_id: str, zones: Sequence[str]) -> None:
        """Note that a client of this process has come, gone, or had its metadata replaced."""
        with self._changed:
            if self._closed or self._local is None:
                return
            self._dirty_clients.add(client_id)
            self._dirty_zones.update(zones)
            self._noted += 1
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="ssehub-presence", daemon=True)
                thread.start()
                self._thread = thread
            self._changed.notify_all()

    def settle(self) -> bool:
        """Wait until the others can see what has changed so far; a second at the most."""
        with self._changed:
            noted = self._noted
            self._changed.wait_for(lambda: self._told >= noted or self._failing or self._closed, _SETTLE)
            return self._told >= noted

    def others(self, client_id: str | All = ALL, zone: str | All = ALL) -> list[Session]:
        """Return the sessions at other processes."""
        with _asking():
            if client_id is ALL:
                everybody = self._ledger.clients(but=self.process)
                records = [
                    (one.process, name.decode(), record) for one in everybody for name, record in one.part.items()
                ]
            else:
                found = self._ledger.look(client_id, but=self.process)
                records = [(process, client_id, record) for process, record in found]
            sessions = [session for record in records for session in _sessions(*record)]
        return [one for one in sessions if zone is ALL or zone in one.zones]

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections at other processes, and how many."""
        zones: Counter[str] = Counter()
        with _asking():
            for one in self._ledger.zones(but=self.process):
                zones.update({zone.decode(): int(count) for zone, count in one.part.items()})
        return dict(zones)

    def processes(self) -> list[Process]:
        """Return all processes that serve streams."""
        with _asking():
            return [Process(one.process, *json.loads(one.alive)) for one in self._ledger.processes()]

    def close(self) -> None:
        """Have the others forget this process."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(_LEAVE)
            if thread.is_alive():  # the server does not answer
                disconnect(self._connect())
                thread.join()

    # What follows runs in the thread.

    def _run(self) -> None:
        whole = True
        while self._wait(whole):
            noted, clients, zones = self._take()
            try:
                there = self._tell(clients, zones, whole)
            except Exception as error:  # whatever it is, the thread goes on: nobody would start another
                self._fail(error)
                whole = True
                continue
            whole = not there
            if there:
                self._succeed(noted)
        self._leave()

    def _wait(self, whole: bool) -> bool:
        """Wait for changes, or until the lease has to be renewed; False once it is over."""
        with self._changed:
            if self._failing:
                self._changed.wait_for(lambda: self._closed, _AGAIN)
            elif not whole:
                patience = max(0.0, self._looked + self._lease / 3 - time.monotonic())
                self._changed.wait_for(lambda: self._closed or self._told < self._noted, patience)
        time.sleep(_GATHER)
        return not self._closed

    def _take(self) -> tuple[int, set[str], set[str]]:
        with self._changed:
            clients, self._dirty_clients = self._dirty_clients, set()
            zones, self._dirty_zones = self._dirty_zones, set()
            return self._noted, clients, zones

    def _succeed(self, noted: int) -> None:
        with self._changed:
            if self._failing:
                logger.warning("the presence on Redis is back")
            self._failing = False
            self._told = noted
            self._changed.notify_all()

    def _tell(self, clients: set[str], zones: set[str], whole: bool) -> bool:
        """Write what has changed, or all; False if this process was forgotten, so that all has to be written."""
        assert self._local is not None
        if whole:
            clients = {one.client_id for one in self._local.find()}
            zones = set(self._local.zones())
        is_time = time.monotonic() > self._looked + self._lease / 3
        if is_time:
            self._stats = self._measure()
            if self._stats["log_lag"] is None:  # the server does not answer: do not wait for it once more
                raise LogError("the log cannot be asked")
        itself = json.dumps([socket.gethostname(), os.getpid(), self._local.count(), self._stats])
        records = {client_id: self._record(client_id) for client_id in clients}
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

    def _record(self, client_id: str) -> str:
        assert self._local is not None
        found = self._local.find(client_id=client_id)
        if not found:
            return ""
        sessions = [[one.id, one.connected_at, *one.zones] for one in found]
        try:
            return json.dumps([found[0].metadata, *sessions])
        except (TypeError, ValueError) as error:  # the application has changed it since
            logger.error("the metadata of client %r is not told to other processes: %s", client_id, error)
            return json.dumps([None, *sessions])

    def _fail(self, error: Exception) -> None:
        with self._changed:
            if not self._failing:
                unforeseen = not isinstance(error, (*ERRORS, LogError))
                logger.warning("the presence on Redis cannot be kept: %s", error, exc_info=unforeseen)
            self._failing = True
            self._changed.notify_all()

    def _leave(self) -> None:
        try:
            if self._failing:
                raise LogError("the server does not answer")
            self._ledger.reap(self.process, is_gone=True)
        except Exception as error:
            logger.warning("the others will see this process until its lease has run out: %s", error)


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except LogError:
        raise
    except Exception as error:  # a client that is closed meanwhile raises this and that, and others may write nonsense
        raise LogError(f"who is connected elsewhere cannot be found out: {error}") from error


def _sessions(process: str, client_id: str, record: bytes) -> list[Session]:
    metadata, *sessions = json.loads(record)
    return [Session(id, client_id, tuple(zones), since, metadata, process) for id, since, *zones in sessions]
