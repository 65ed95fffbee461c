"""Ledger: what a hub's presence is on Redis, its keys and the scripts that keep it. Knows nothing of threads.

Of every process that serves streams there are three keys. ``alive:<process>`` expires with its lease and says where it
runs and its numbers. ``clients:<process>`` is a hash of its clients: what is noted about each, and its sessions, in
pages (:mod:`ssehub.log.redis.pages`). ``zones:<process>`` is a hash of the number of connections by zone. The set
``processes`` names them all, and the hash ``where`` names for each client the processes that it is connected to: to
find a client costs the same however many processes there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ssehub.log.redis.link import Client

#: The name of a process.
_PROCESS = re.compile(rb"[0-9a-f]{16}")
#: Keys of all that follow: where, processes, and a process's clients, zones and alive.
_WHERE = """
local function is_of_another_program(key, kind)
  local found = redis.call('TYPE', key).ok
  return found ~= kind and found ~= 'none'
end
if is_of_another_program(KEYS[2], 'set') then redis.call('DEL', KEYS[2]) end
if is_of_another_program(KEYS[1], 'hash') then
  redis.call('DEL', KEYS[1])
  -- A process that is not known to live writes everything anew.
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
#: Arguments: a process, and whether it is known to be gone. Clears away what is left of it.
_REAP = (
    _WHERE
    + """
if ARGV[2] == '1' then redis.call('DEL', KEYS[5]) end
if redis.call('EXISTS', KEYS[5]) == 0 then
  clear(ARGV[1])
  redis.call('SREM', KEYS[2], ARGV[1])
end
"""
)
#: Arguments: a client, a process not to look at, what the names of the keys of clients and of the living begin with,
#: and whether the first page of each will do. Gives the processes where the client is, each with its first page and an
#: array of the others.
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
    """Hold what the ledger has of a process that lives."""

    process: str
    #: What it says of itself.
    alive: bytes
    #: One of its hashes; nothing if none was wanted.
    part: dict[bytes, bytes]


class Ledger:
    """Keep the presence of all processes. Safe to use from any thread; what it raises are the errors of Redis.

    :param connect: gives the client to send commands with.
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

    def tell(self, process: str, itself: str, clients: Mapping[str, str], zones: Mapping[str, int], anew: bool) -> bool:
        """Write down a process and renew its lease; False if it was not known.

        :param clients: those to write, each with its record; an empty one deletes.
        :param zones: those to write, each with its connections; 0 deletes.
        :param anew: whether what there was of it is to go first.
        """
        arguments: list[Any] = [process, itself, int(self._lease * 1000), int(anew), len(clients)]
        for client_id, record in clients.items():
            arguments += [client_id, record]
        for zone, count in zones.items():
            arguments += [zone, count or ""]
        return bool(self._connect().register_script(_TELL)(keys=self._keys(process), args=arguments))

    def reap(self, process: str, is_gone: bool = False) -> None:
        """Clear away what is left of a process, if its lease has run out.

        :param is_gone: whether it is known to be gone.
        """
        self._connect().register_script(_REAP)(keys=self._keys(process), args=[process, int(is_gone)])

    def some(self, count: int) -> list[str]:
        """Return some processes at random, whether they live or not."""
        names: Any = self._connect().srandmember(self._processes, count)
        return _processes(names)

    def look(self, client_id: str, but: str, first_only: bool = False) -> list[tuple[str, bytes, bytes]]:
        """Return where a client is connected to, but one process: each with the client's first page, and the others.

        :param first_only: whether the first page will do; the array of the others is empty then.
        """
        look = self._connect().register_script(_LOOK)
        found: Any = look(keys=[self._where], args=[client_id, but, self._clients, self._alive, int(first_only)])
        triples = zip(found[::3], found[1::3], found[2::3], strict=True)
        return [(process.decode(errors="replace"), first, further) for process, first, further in triples]

    def clients(self, but: str) -> list[Found]:
        """Return the processes that live, but one, with their clients' records."""
        return self._living(self._clients, but)

    def processes(self) -> list[Found]:
        """Return the processes that live, with nothing but what they say of themselves."""
        return self._living(None)

    def zones(self, but: str) -> list[Found]:
        """Return the processes that live, but one, with the connections in each of their zones."""
        return self._living(self._zones, but)

    def _living(self, prefix: str | None, but: str = "") -> list[Found]:
        """Return the processes that live, but one.

        :param prefix: what the name of the hash begins with that is wanted of each.
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
        own = (prefix + process for prefix in (self._clients, self._zones, self._alive))
        return [self._where, self._processes, *own]


def _processes(names: Iterable[bytes]) -> list[str]:
    """Return the names of processes among members of a set into which other programs may have written."""
    return [name.decode() for name in names if _PROCESS.fullmatch(name)]
