"""The format of a stream on Redis, and the scripts that append an entry and find the end. No connections, no threads.

An entry's id is ``<epoch>-<offset>``. It has these fields:

=====  ================================================================================
Field  Content
=====  ================================================================================
``h``  The entry's nonce and that of the entry before: ``<nonce>|<previous nonce>``.
``r``  The route (:mod:`ssehub.log.route`); JSON.
``d``  The encoded message.
``k``  If the message has a key: the key and the address (:attr:`ssehub.Packet.once`).
=====  ================================================================================
"""

from __future__ import annotations

import re
from binascii import crc_hqx

from ssehub.log.position import GENESIS, Position

_LINK = re.compile(rb"([0-9a-f]{8})\|([0-9a-f]{8})")
#: Slots of a Redis Cluster.
_SLOTS = 16384

#: A Lua function, ``last()``, that returns the newest entry that ssehub wrote. Later entries, which other programs
#: wrote, are deleted, because the next entry may need their ids. If there is no entry of ssehub, ``begin()`` begins a
#: new log with an entry without a message. So an empty log has a place, too, and its loss can be noticed. The first id
#: of a new log is greater than all ids before.
_LAST = """
local function begin(after)
  local now = redis.call('TIME')
  local epoch = now[1] * 1000 + math.floor(now[2] / 1000)
  local first = math.max(epoch, string.match(after or '0', '^(%d+)') + 1)
  local id, link = string.format('%.0f', first) .. '-0', '00000000|00000000'
  local added = redis.pcall('XADD', KEYS[1], id, 'h', link)
  if added.err then
    -- The id of a stranger is so large that no other can follow it. If the server refuses writes, the error is not ERR:
    -- then XADD fails again. It must not follow a DEL, because after one write, a script may exceed maxmemory.
    if string.find(added.err, '^ERR') then
      redis.call('DEL', KEYS[1])
      id = string.format('%.0f', epoch) .. '-0'
    end
    redis.call('XADD', KEYS[1], id, 'h', link)
  end
  return {id, {'h', link}}
end
local function is_ours(fields)
  local own, previous = string.match(fields[1] == 'h' and fields[2] or '', '^([0-9a-f]+)|([0-9a-f]+)$')
  return own and #own == 8 and #previous == 8
end
local function last()
  local from, strangers, count = '+', {}, 1
  repeat
    local found = redis.call('XREVRANGE', KEYS[1], from, '-', 'COUNT', count)
    for _, entry in ipairs(found) do
      if is_ours(entry[2]) then
        for _, id in ipairs(strangers) do redis.call('XDEL', KEYS[1], id) end
        if strangers[1] and redis.pcall('XSETID', KEYS[1], entry[1]).err then return begin(strangers[1]) end
        return entry
      end
      strangers[#strangers + 1] = entry[1]
    end
    from, count = found[1] and '(' .. found[#found][1], 100
  until not from
  -- An emptied stream remembers its last id, and would refuse a smaller one.
  if not strangers[1] and redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DEL', KEYS[1]) end
  return begin(strangers[1])
end
"""
TOP = _LAST + "return last()"
#: Appends an entry, unless an earlier attempt has appended it. Keys: the stream; the entry's record; if the entry has a
#: key, the sorted set that has the offsets of the entries with keys. Arguments: the nonce; the route; the message; the
#: size; if there was an earlier attempt, the epoch of the log before it; the milliseconds that the record is kept; the
#: field ``k``. Returns the id and the field ``h`` of the entry. If the stream has an entry with the same key, returns
#: its id and its fields ``h``, ``d`` and ``k``. Returns nothing if the epoch is not the same as before the earlier
#: attempt; an entry with a key is written then, because no other entry has this key.
APPEND = (
    _LAST
    + """
local nonce, id, link = string.match(redis.call('GET', KEYS[2]) or '', '^(%S+) (%S+) (%S+)$')
if nonce == ARGV[1] then return {id, link} end
local before = last()
local epoch, offset = string.match(before[1], '^(%d+)-(%d+)$')
if ARGV[5] ~= '' and ARGV[5] ~= epoch and not KEYS[3] then return {} end
if KEYS[3] then
  local offset = redis.pcall('ZSCORE', KEYS[3], ARGV[7])
  if offset and type(offset) ~= 'table' then
    -- The set may be that of an older log. So the entry has the key, too.
    local first = epoch .. '-' .. string.format('%.0f', offset)
    local found = redis.call('XRANGE', KEYS[1], first, first)[1]
    if found and is_ours(found[2]) and found[2][7] == 'k' and found[2][8] == ARGV[7] then
      return {found[1], found[2][2], found[2][6], ARGV[7]}
    end
  end
end
id = epoch .. '-' .. string.format('%.0f', offset + 1)
link = ARGV[1] .. '|' .. string.sub(before[2][2], 1, 8)
local function add()
  if KEYS[3] then
    return redis.pcall('XADD', KEYS[1], 'MAXLEN', '=', ARGV[4], id, 'h', link, 'r', ARGV[2], 'd', ARGV[3],
      'k', ARGV[7])
  end
  return redis.pcall('XADD', KEYS[1], 'MAXLEN', '=', ARGV[4], id, 'h', link, 'r', ARGV[2], 'd', ARGV[3])
end
local added = add()
if added.err and string.find(added.err, 'smaller') then
  -- Somebody has deleted newer entries, or moved the stream's last id.
  redis.call('XSETID', KEYS[1], before[1])
  added = add()
end
if added.err then return added end
redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. id .. ' ' .. link, 'PX', ARGV[6])
if KEYS[3] then
  if redis.call('TYPE', KEYS[3]).ok ~= 'zset' then redis.call('DEL', KEYS[3]) end
  local oldest = string.match(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1], '-(%d+)$')
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. oldest)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '(' .. offset, '+inf')
  redis.call('ZADD', KEYS[3], string.format('%.0f', offset + 1), ARGV[7])
end
return {id, link}
"""
)


def position_of(id: bytes, link: bytes | None) -> tuple[Position, str | None]:
    """Decode an entry's position, and the nonce of the entry before.

    :param link: the field ``h``.
    :returns: the position, and the nonce. If ssehub did not write the entry, None instead of the nonce.
    """
    epoch, _, offset = id.partition(b"-")
    nonces = _LINK.fullmatch(link or b"")
    if nonces is None:
        return Position(int(epoch), int(offset), GENESIS), None
    return Position(int(epoch), int(offset), nonces[1].decode()), nonces[2].decode()


def stream_key(name: str, number: int, partitions: int) -> str:
    """Return the key of a partition. The keys are spread evenly over the slots of a cluster.

    Specification: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
    """
    if partitions == 1:
        return f"{{{name}}}:log"
    n = 0
    while crc_hqx(f"{name}:{number}/{partitions}:{n}".encode(), 0) % _SLOTS * partitions // _SLOTS != number:
        n += 1
    return f"{{{name}:{number}/{partitions}:{n}}}:log"
