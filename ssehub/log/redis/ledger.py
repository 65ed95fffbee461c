"""Ledger: the keys on Redis that hold a hub's presence, and the scripts that change them. It uses no threads.

=====================  ======  =========================================================================================
Key                    Type    Content
=====================  ======  =========================================================================================
``alive:<process>``    string  The process's host, pid, connections and statistics. It expires with the lease.
``clients:<process>``  hash    For each client of the process: its metadata and sessions, in pages
                               (:mod:`ssehub.log.redis.pages`).
``made:<process>``     string  The running productions of the process, as JSON.
``zones:<process>``    hash    For each zone: the number of its connections at the process.
``processes``          set     The ids of all processes.
``where``              hash    For each client: the ids of the processes to which it is connected. So the cost of
                               finding a client does not depend on the number of processes.
=====================  ======  =========================================================================================

Each key begins with the log's name in braces, so that all are in one slot of a cluster: ``{ssehub}:where``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ssehub.log.redis.link import Client

#: The id of a process.
_PROCESS = re.compile(rb"[0-9a-f]{16}")
#: All scripts but _LOOK have these keys: ``where``, ``processes``, and a process's ``clients``, ``zones``, ``alive``
#: and ``made``.
_WHERE = """
local function is_of_another_program(key, kind)
  local found = redis.call('TYPE', key).ok
  return found ~= kind and found ~= 'none'
end
if is_of_another_program(KEYS[2], 'set') then redis.call('DEL', KEYS[2]) end
if is_of_another_program(KEYS[1], 'hash') then
  redis.call('DEL', KEYS[1])
  -- Without `alive`, each process writes all its clients again.
  for _, process in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    redis.call('DEL', string.sub(KEYS[5], 1, -#ARGV[1] - 1) .. process)
  end
end
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
#: Writes the clients and zones of a process, and renews its lease. Arguments: the process; the content of ``alive``;
#: the lease in milliseconds; 1 to delete its old clients and zones first, otherwise 0; the number of clients; the
#: content of ``made``; each client, followed by its record; each zone, followed by its count. An empty record or count
#: deletes the field. Returns 1 if the process's lease had not expired, otherwise 0.
_TELL = (
    _WHERE
    + """
local process, last = ARGV[1], 6 + 2 * ARGV[5]
local known = redis.call('EXISTS', KEYS[5])
if ARGV[4] == '1' then clear(process) end
redis.call('SET', KEYS[5], ARGV[2], 'PX', ARGV[3])
redis.call('SADD', KEYS[2], process)
if ARGV[6] == '' then redis.call('DEL', KEYS[6]) else redis.call('SET', KEYS[6], ARGV[6]) end
for n = 7, last, 2 do
  if ARGV[n + 1] == '' then
    redis.call('HDEL', KEYS[3], ARGV[n])
    drop(ARGV[n], process)
  elseif redis.call('HSET', KEYS[3], ARGV[n], ARGV[n + 1]) == 1 and not string.find(ARGV[n], '\\n') then
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
#: Deletes the keys of a process if its lease has expired. Arguments: the process; 1 to delete them in any case.
_REAP = (
    _WHERE
    + """
if ARGV[2] == '1' then redis.call('DEL', KEYS[5]) end
if redis.call('EXISTS', KEYS[5]) == 0 then
  clear(ARGV[1])
  redis.call('DEL', KEYS[6])
  redis.call('SREM', KEYS[2], ARGV[1])
end
"""
)
#: Finds the sessions of a client. Key: ``where``. Arguments: the client; a process to leave out; the beginnings of the
#: keys ``clients`` and ``alive``; 1 to return only the client's first page at each process, otherwise 0. Returns for
#: each process three values: its id, the client's first page, and a JSON array of its other pages.
_LOOK = """
local function get(key, field)
  local value = redis.pcall('HGET', key, field)
  return type(value) == 'string' and value
end
local found = {}
for process in string.gmatch(get(KEYS[1], ARGV[1]) or '', '%S+') do
  if process ~= ARGV[2] and redis.call('EXISTS', ARGV[4] .. process) == 1 then
    local key, further = ARGV[3] .. process, {}
    local first = get(key, ARGV[1])
    local count = ARGV[5] == '0' and tonumber(get(key, ARGV[1] .. '\\n') or 1) or 1
    for n = 1, math.min(count, 100000) - 1 do
      further[#further + 1] = get(key, ARGV[1] .. '\\n' .. n) or nil
    end
    if first then
      found[#found + 1] = process
      found[#found + 1] = first
      found[#found + 1] = '[' .. table.concat(further, ',') .. ']'
    end
  end
end
return found
"""


class Found(NamedTuple):
    """What the ledger holds about a process whose lease has not expired."""

    process: str
    #: The content of ``alive``: the process's host, pid, connections and statistics, as JSON.
    alive: bytes
    #: The process's ``clients`` or ``zones``; empty if neither was asked for.
    part: dict[bytes, bytes]


class Ledger:
    """Reads and writes the presence of all processes. Safe to use from any thread. It raises the errors of redis-py.

    :param connect: returns the client that sends the commands.
    :param name: the name of the log.
    :param lease: seconds after which a process that does not renew its lease is forgotten.
    """

    def __init__(self, connect: Callable[[], Client], name: str, lease: float) -> None:
        self._connect = connect
        self._lease = lease
        #: The keys, or their beginnings.
        self._where, self._processes, self._clients, self._zones, self._alive, self._made = (
            f"{{{name}}}:{what}" for what in ("where", "processes", "clients:", "zones:", "alive:", "made:")
        )

    def tell(
        self,
        process: str,
        itself: str,
        clients: Mapping[str, str],
        zones: Mapping[str, int],
        anew: bool,
        productions: str = "",
    ) -> bool:
        """Write changes of a process, and renew its lease.

        :param itself: the content of ``alive``.
        :param clients: the fields to write, with the record of each; an empty record deletes the field.
        :param zones: the zones to write, with the number of connections in each; 0 deletes the zone.
        :param anew: whether to delete all old clients and zones of the process first.
        :param productions: the content of ``made``.
        :returns: False if the process was unknown, because its lease had expired.
        """
        arguments: list[Any] = [process, itself, int(self._lease * 1000), int(anew), len(clients), productions]
        for client_id, record in clients.items():
            arguments += [client_id, record]
        for zone, count in zones.items():
            arguments += [zone, count or ""]
        return bool(self._connect().register_script(_TELL)(keys=self._keys(process), args=arguments))

    def reap(self, process: str, is_gone: bool = False) -> None:
        """Delete the keys of a process if its lease has expired.

        :param is_gone: True to delete them in any case.
        """
        self._connect().register_script(_REAP)(keys=self._keys(process), args=[process, int(is_gone)])

    def expired(self, count: int) -> list[tuple[str, str]]:
        """Look at some processes at random. Return those whose leases have expired, with the content of ``made``."""
        found: Any = self._connect().srandmember(self._processes, count)
        names = _processes(found)
        with self._connect().pipeline(transaction=False) as pipe:
            for name in names:
                pipe.exists(self._alive + name)
                pipe.get(self._made + name)
            answers = iter(pipe.execute(raise_on_error=False))
        looks = [(name, next(answers), next(answers)) for name in names]
        return [
            (name, made.decode(errors="replace") if isinstance(made, bytes) else "")
            for name, is_alive, made in looks
            if is_alive == 0
        ]

    def look(self, client_id: str, but: str, first_only: bool = False) -> list[tuple[str, bytes, bytes]]:
        """Find the processes to which a client is connected.

        :param but: a process to leave out.
        :param first_only: whether to read only the first page at each process.
        :returns: for each process its id, the client's first page, and a JSON array of the other pages.
        """
        look = self._connect().register_script(_LOOK)
        found: Any = look(keys=[self._where], args=[client_id, but, self._clients, self._alive, int(first_only)])
        triples = zip(found[::3], found[1::3], found[2::3], strict=True)
        return [(process.decode(errors="replace"), first, further) for process, first, further in triples]

    def clients(self, but: str) -> list[Found]:
        """Return all living processes except ``but``, with the records of their clients."""
        return self._living(self._clients, but)

    def processes(self) -> list[Found]:
        """Return all living processes, without their clients and zones."""
        return self._living(None)

    def zones(self, but: str) -> list[Found]:
        """Return all living processes except ``but``, with the number of connections in each of their zones."""
        return self._living(self._zones, but)

    def _living(self, prefix: str | None, but: str = "") -> list[Found]:
        """Return all processes except ``but`` whose leases have not expired.

        :param prefix: the beginning of the key of the hash to read for each process; None to read no hash.
        """
        members: Any = self._connect().smembers(self._processes)
        names = sorted(name for name in _processes(members) if name != but)
        with self._connect().pipeline(transaction=False) as pipe:
            for name in names:
                pipe.get(self._alive + name)
                if prefix is not None:
                    pipe.hgetall(prefix + name)
            answers = iter(pipe.execute(raise_on_error=False))
        found = [(name, next(answers), {} if prefix is None else next(answers)) for name in names]
        return [Found(*one) for one in found if isinstance(one[1], bytes) and isinstance(one[2], dict)]

    def _keys(self, process: str) -> list[str]:
        own = (prefix + process for prefix in (self._clients, self._zones, self._alive, self._made))
        return [self._where, self._processes, *own]


def _processes(names: Iterable[bytes]) -> list[str]:
    """Return the process ids among the members of a set. Other programs may have added other members."""
    return [name.decode() for name in names if _PROCESS.fullmatch(name)]
