"""RedisPresence: the presence of a hub, kept on Redis.

Every process that serves streams has two hashes, which expire with its lease. ``clients:<process>`` has the
sessions and metadata of its clients by client id, and the process itself under the empty name; ``zones:<process>`` has
the number of connections by zone. The set ``processes`` names the processes; whoever finds one in it
that has no hash takes it out.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ssehub.exceptions import LogError
from ssehub.log.packet import ALL, All
from ssehub.log.presence import Local, Presence, Process, Session
from ssehub.log.redis.link import ERRORS, Client

logger = logging.getLogger("ssehub")

#: Seconds that changes are gathered before they are written: a thousand clients that come at once are one write.
_GATHER = 0.005
#: Seconds a new connection waits for the others to be told of it.
_SETTLE = 1.0
#: Seconds between attempts while the server is away.
_AGAIN = 0.5

#: Arguments: the field, and a name not to look at. Gives the field's value at each process that has it; a process
#: that is gone is taken out.
_LOOK = """
local found = {}
for _, process in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if process ~= ARGV[2] then
    local value = redis.call('HGET', KEYS[2] .. process, ARGV[1])
    if value then
      found[#found + 1] = process
      found[#found + 1] = value
    elseif redis.call('EXISTS', KEYS[2] .. process) == 0 then
      redis.call('SREM', KEYS[1], process)
    end
  end
end
return found
"""


class RedisPresence(Presence):
    """Keep a hub's presence on Redis; see :class:`~ssehub.log.presence.Presence`.

    :param connect: gives the client to send commands with, which does not try again by itself.
    :param is_cluster: whether that is one for a cluster.
    :param name: the name of the log.
    :param lease: seconds after which a process that says nothing is forgotten.
    """

    def __init__(self, connect: Callable[[], Client], is_cluster: bool, name: str, lease: float) -> None:
        self._connect = connect
        #: A cluster has no transactions in redis-py 5.
        self._whole = not is_cluster
        self._lease = lease
        #: Keys; all in one slot of a cluster.
        self._processes, self._clients, self._zones = (
            f"{{{name}}}:{what}" for what in ("processes", "clients:", "zones:")
        )
        self.process = secrets.token_hex(8)
        self._local: Local | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._dirty_clients: set[str] = set()
        self._dirty_zones: set[str] = set()
        #: Changes noted, and how many of them the others can see.
        self._noted = self._told = 0
        self._failing = self._closed = False

    def start(self, local: Local) -> None:
        """Begin to tell the others, in a thread that starts with the first change."""
        self._local = local

    def changed(self, client_id: str, zones: Sequence[str]) -> None:
        """Note that a client of this process has come, gone, or had its metadata replaced."""
        with self._changed:
            if self._closed or self._local is None:
                return
            self._dirty_clients.add(client_id)
            self._dirty_zones.update(zones)
            self._noted += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ssehub-presence", daemon=True)
                self._thread.start()
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
                records = self._all()
            else:
                found = self._connect().register_script(_LOOK)(
                    keys=[self._processes, self._clients], args=[client_id, self.process]
                )
                records = [(process, client_id.encode(), record) for process, record in _pairs(found)]
        sessions = [session for record in records for session in _sessions(*record)]
        return [one for one in sessions if zone is ALL or zone in one.zones]

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections at other processes, and how many."""
        zones: Counter[str] = Counter()
        with _asking():
            for _, counts in self._hashes(self._zones):
                zones.update({zone.decode(): int(count) for zone, count in counts.items()})
        return dict(zones)

    def processes(self) -> list[Process]:
        """Return all processes that serve streams."""
        with _asking():
            found = self._connect().register_script(_LOOK)(keys=[self._processes, self._clients], args=["", ""])
        return sorted(Process(process, *json.loads(record)) for process, record in _pairs(found))

    def close(self) -> None:
        """Have the others forget this process."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _all(self) -> list[tuple[str, bytes, bytes]]:
        hashes = self._hashes(self._clients)
        return [(process, client_id, record) for process, clients in hashes for client_id, record in clients.items()]

    def _hashes(self, prefix: str) -> list[tuple[str, dict[bytes, bytes]]]:
        names: Iterable[bytes] = self._connect().smembers(self._processes)  # type: ignore[assignment]
        others = sorted(name.decode() for name in names if name.decode() != self.process)
        with self._connect().pipeline(transaction=False) as pipe:
            for process in others:
                pipe.hgetall(prefix + process)
            return list(zip(others, pipe.execute(), strict=True))

    # What follows runs in the thread.

    def _run(self) -> None:
        whole = True
        while self._wait(whole):
            noted, clients, zones = self._take()
            try:
                there = self._tell(clients, zones, whole)
            except (*ERRORS, LogError) as error:
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
                self._changed.wait_for(lambda: self._closed or self._told < self._noted, self._lease / 3)
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
        """Write what has changed, or all; False if nothing of this process was there, so that all has to be written."""
        assert self._local is not None
        if whole:
            clients = {one.client_id for one in self._local.find()}
            zones = set(self._local.zones())
        own_clients, own_zones = self._clients + self.process, self._zones + self.process
        lease = int(self._lease * 1000)
        with self._connect().pipeline(transaction=self._whole) as pipe:
            if whole:
                pipe.delete(own_clients)
                pipe.delete(own_zones)
            else:
                pipe.exists(own_clients)
            itself = json.dumps([socket.gethostname(), os.getpid(), self._local.count()])
            _write(pipe, own_clients, {client_id: self._record(client_id) for client_id in clients} | {"": itself})
            _write(pipe, own_zones, {zone: self._local.count(zone) or None for zone in zones})
            pipe.pexpire(own_clients, lease)
            pipe.pexpire(own_zones, lease)
            pipe.sadd(self._processes, self.process)
            there = pipe.execute()[0]
        return whole or bool(there)

    def _record(self, client_id: str) -> str | None:
        assert self._local is not None
        found = self._local.find(client_id=client_id)
        if not found:
            return None
        return json.dumps([found[0].metadata, *([one.id, one.connected_at, *one.zones] for one in found)])

    def _fail(self, error: Exception) -> None:
        with self._changed:
            if not self._failing:
                logger.warning("the presence on Redis cannot be kept: %s", error)
            self._failing = True
            self._changed.notify_all()

    def _leave(self) -> None:
        try:
            with self._connect().pipeline(transaction=self._whole) as pipe:
                pipe.delete(self._clients + self.process)
                pipe.delete(self._zones + self.process)
                pipe.srem(self._processes, self.process)
                pipe.execute()
        except (*ERRORS, LogError) as error:
            logger.warning("the others will see this process until its lease has run out: %s", error)


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except ERRORS as error:
        raise LogError(f"who is connected elsewhere cannot be found out: {error}") from error


def _write(pipe: Any, key: str, fields: dict[str, Any]) -> None:
    kept = {name: value for name, value in fields.items() if value is not None}
    if kept:
        pipe.hset(key, mapping=kept)
    if len(kept) < len(fields):
        pipe.hdel(key, *(fields.keys() - kept.keys()))


def _pairs(found: list[bytes]) -> list[tuple[str, bytes]]:
    return [(process.decode(), value) for process, value in zip(found[::2], found[1::2], strict=True)]


def _sessions(process: str, client_id: bytes, record: bytes) -> list[Session]:
    if not client_id:
        return []
    metadata, *sessions = json.loads(record)
    name = client_id.decode()
    return [Session(id, name, tuple(zones), since, metadata, process) for id, since, *zones in sessions]
