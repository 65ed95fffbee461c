"""RedisPresence: the presence of a hub, kept on Redis.

Of every process that serves streams there are three keys. ``alive:<process>`` expires with its lease and says where it
runs. ``clients:<process>`` is a hash of its clients: what is noted about each, and its sessions. ``zones:<process>`` is
a hash of the number of connections by zone. The set ``processes`` names them all, and the hash ``where`` names for each
client the processes that it is connected to: to find a client costs the same however many processes there are.

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

#: Keys of all that follow: where, processes, and a process's clients, zones and alive.
_WHERE = """
local function drop(client, process)
  local rest = {}
  for one in string.gmatch(redis.call('HGET', KEYS[1], client) or '', '%S+') do
    if one ~= process then rest[#rest + 1] = one end
  end
  if #rest == 0 then redis.call('HDEL', KEYS[1], client)
  else redis.call('HSET', KEYS[1], client, table.concat(rest, ' ')) end
end
local function clear(process)
  for _, client in ipairs(redis.call('HKEYS', KEYS[3])) do drop(client, process) end
  redis.call('DEL', KEYS[3])
  redis.call('DEL', KEYS[4])
end
"""
#: Arguments: the process, what is to be said of it, its lease, whether to begin anew; the number of clients, and each
#: with its record; the zones, each with its count. What is empty is gone. Says whether the process was known.
_TELL = (
    _WHERE
    + """
local process, last = ARGV[1], 5 + 2 * ARGV[5]
local known = redis.call('EXISTS', KEYS[5])
if ARGV[4] == '1' then clear(process) end
redis.call('SET', KEYS[5], ARGV[2], 'PX', ARGV[3])
redis.call('SADD', KEYS[2], process)
for n = 6, last, 2 do
  if ARGV[n + 1] == '' then
    redis.call('HDEL', KEYS[3], ARGV[n])
    drop(ARGV[n], process)
  elseif redis.call('HSET', KEYS[3], ARGV[n], ARGV[n + 1]) == 1 then
    local others = redis.call('HGET', KEYS[1], ARGV[n])
    redis.call('HSET', KEYS[1], ARGV[n], others and others .. ' ' .. process or process)
  end
end
for n = last + 1, #ARGV, 2 do
  if ARGV[n + 1] == '' then redis.call('HDEL', KEYS[4], ARGV[n])
  else redis.call('HSET', KEYS[4], ARGV[n], ARGV[n + 1]) end
end
return known
"""
)
#: Arguments: a process, and whether it is known to be gone. Clears away what is left of it.
_BURY = (
    _WHERE
    + """
if ARGV[2] == '1' then redis.call('DEL', KEYS[5]) end
if redis.call('EXISTS', KEYS[5]) == 0 then
  clear(ARGV[1])
  redis.call('SREM', KEYS[2], ARGV[1])
end
"""
)
#: Arguments: a client, a process not to look at, and what the names of the keys of clients and of the living begin
#: with. Gives the processes where the client is, each with its record.
_LOOK = """
local found = {}
for process in string.gmatch(redis.call('HGET', KEYS[1], ARGV[1]) or '', '%S+') do
  if process ~= ARGV[2] and redis.call('EXISTS', ARGV[4] .. process) == 1 then
    local record = redis.call('HGET', ARGV[3] .. process, ARGV[1])
    if record then
      found[#found + 1] = process
      found[#found + 1] = record
    end
  end
end
return found
"""


class RedisPresence(Presence):
    """Keep a hub's presence on Redis; see :class:`~ssehub.log.presence.Presence`.

    :param connect: gives the client to send commands with, which does not try again by itself.
    :param name: the name of the log.
    :param lease: seconds after which a process that says nothing is forgotten.
    """

    def __init__(self, connect: Callable[[], Client], name: str, lease: float) -> None:
        self._connect = connect
        self._lease = lease
        #: All in one slot of a cluster.
        self._where, self._processes, self._clients, self._zones, self._alive = (
            f"{{{name}}}:{what}" for what in ("where", "processes", "clients:", "zones:", "alive:")
        )
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
            records = self._all() if client_id is ALL else self._look(client_id)
            sessions = [session for record in records for session in _sessions(*record)]
        return [one for one in sessions if zone is ALL or zone in one.zones]

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections at other processes, and how many."""
        zones: Counter[str] = Counter()
        with _asking():
            for _, _, counts in self._living(self._zones):
                zones.update({zone.decode(): int(count) for zone, count in counts.items()})
        return dict(zones)

    def processes(self) -> list[Process]:
        """Return all processes that serve streams."""
        with _asking():
            living = self._living(self._zones, "")
            return sorted(
                (Process(process, *json.loads(alive)) for process, alive, _ in living), key=lambda one: one.id
            )

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

    def _all(self) -> list[tuple[str, str, bytes]]:
        there = self._living(self._clients)
        return [
            (process, client.decode(), record) for process, _, clients in there for client, record in clients.items()
        ]

    def _look(self, client_id: str) -> list[tuple[str, str, bytes]]:
        look = self._connect().register_script(_LOOK)
        found: Any = look(keys=[self._where], args=[client_id, self.process, self._clients, self._alive])
        return [(process.decode(), client_id, record) for process, record in zip(found[::2], found[1::2], strict=True)]

    def _living(self, prefix: str, but: str | None = None) -> list[tuple[str, bytes, dict[bytes, bytes]]]:
        """Return the processes that live, what they say of themselves, and the hash whose name begins like that.

        :param but: one to leave out; this one by default.
        """
        but = self.process if but is None else but
        members: Any = self._connect().smembers(self._processes)
        names = sorted(name.decode() for name in members if name.decode() != but)
        with self._connect().pipeline(transaction=False) as pipe:
            for name in names:
                pipe.get(self._alive + name)
                pipe.hgetall(prefix + name)
            found = pipe.execute()
        there = zip(names, found[::2], found[1::2], strict=True)
        return [(name, alive, part) for name, alive, part in there if alive is not None]

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
        """Write what has changed, or all; False if this process was forgotten, so that all has to be written."""
        assert self._local is not None
        if whole:
            clients = {one.client_id for one in self._local.find()}
            zones = set(self._local.zones())
        is_time = time.monotonic() > self._looked + self._lease / 3
        if is_time:
            self._stats = self._measure()
        itself = json.dumps([socket.gethostname(), os.getpid(), self._local.count(), self._stats])
        arguments: list[Any] = [self.process, itself, int(self._lease * 1000), int(whole), len(clients)]
        for client_id in clients:
            arguments += [client_id, self._record(client_id)]
        for zone in zones:
            arguments += [zone, self._local.count(zone) or ""]
        known = self._connect().register_script(_TELL)(keys=self._keys(self.process), args=arguments)
        if is_time:
            self._looked = time.monotonic()
            self._look_after_neighbours()
        return whole or bool(known)

    def _look_after_neighbours(self) -> None:
        some: Any = self._connect().srandmember(self._processes, _NEIGHBOURS)
        for process in some:
            self._bury(process.decode(), is_gone=False)

    def _bury(self, process: str, is_gone: bool) -> None:
        self._connect().register_script(_BURY)(keys=self._keys(process), args=[process, int(is_gone)])

    def _keys(self, process: str) -> list[str]:
        own = (prefix + process for prefix in (self._clients, self._zones, self._alive))
        return [self._where, self._processes, *own]

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
            self._bury(self.process, is_gone=True)
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
