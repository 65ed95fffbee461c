"""The format of a stream on Redis, and the scripts that append an entry and find the end. No connections, no threads.

An entry's id is ``<epoch>-<offset>``. It has these fields:

=====  ================================================================================
Field  Content
=====  ================================================================================
``h``  The entry's nonce and that of the entry before: ``<nonce>|<previous nonce>``.
``r``  The route (:mod:`ssehub.log.route`); JSON.
``d``  The encoded message.
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
#: Appends an entry, unless an earlier attempt has appended it. Keys: the stream, and the entry's record. Arguments: the
#: nonce; the route; the message; the size; if there was an earlier attempt, the epoch of the log before it; the
#: milliseconds that the record is kept. Returns the id and the field ``h`` of the entry. Returns nothing if the epoch
#: is not the same as before the earlier attempt.
APPEND = (
    _LAST
    + """
local nonce, id, link = string.match(redis.call('GET', KEYS[2]) or '', '^(%S+) (%S+) (%S+)$')
if nonce == ARGV[1] then return {id, link} end
local before = last()
local epoch, offset = string.match(before[1], '^(%d+)-(%d+)$')
if ARGV[5] ~= '' and ARGV[5] ~= epoch then return {} end
id = epoch .. '-' .. string.format('%.0f', offset + 1)
link = ARGV[1] .. '|' .. string.sub(before[2][2], 1, 8)
local function add()
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
