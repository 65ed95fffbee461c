"""What a stream on Redis holds: entries, their ids and links, and the scripts that append them and find the end.

Knows nothing of connections and threads.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any

from ssehub.log.packet import ALL, Command, Entry, Packet
from ssehub.log.position import GENESIS, Position
from ssehub.wire import Message

logger = logging.getLogger("ssehub")

_LINK = re.compile(rb"([0-9a-f]{8})\|([0-9a-f]{8})")

#: What begins a log: an entry of no message, so that an empty log has a place, and its loss can be told.
_BEGIN = """
local function last()
  local found = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
  if #found == 0 then
    -- An emptied stream remembers its last id, and would refuse a smaller one.
    if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DEL', KEYS[1]) end
    local now = redis.call('TIME')
    local epoch = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
    redis.call('XADD', KEYS[1], epoch .. '-0', 'h', '00000000|00000000')
    found = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
  end
  return found[1]
end
"""
TOP = _BEGIN + "return last()"
#: Arguments: the nonce, the route, the message, the size; whether it may have been written before, and the id and nonce
#: of an entry that is older: from there on it is looked for. The answer is the id and the nonces; nothing if that older
#: entry is gone, and with it perhaps what is looked for.
APPEND = (
    _BEGIN
    + """
if ARGV[5] == '1' then
  local known = redis.call('XRANGE', KEYS[1], ARGV[6], ARGV[6])
  if not known[1] or string.sub(known[1][2][2], 1, 8) ~= ARGV[7] then return {} end
  local from = ARGV[6]
  while from do
    local page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 500)
    for _, entry in ipairs(page) do
      if string.sub(entry[2][2], 1, 8) == ARGV[1] then return {entry[1], entry[2][2]} end
    end
    from = #page == 500 and '(' .. page[500][1]
  end
end
local before = last()
local epoch, offset = string.match(before[1], '^(%d+)-(%d+)$')
local id = epoch .. '-' .. string.format('%.0f', offset + 1)
local link = ARGV[1] .. '|' .. (string.match(before[2][2], '^(%x%x%x%x%x%x%x%x)|') or '00000000')
redis.call('XADD', KEYS[1], 'MAXLEN', '=', ARGV[4], id, 'h', link, 'r', ARGV[2], 'd', ARGV[3])
return {id, link}
"""
)


def follows(position: Position, previous: str | None, tail: Position) -> bool:
    """Tell whether an entry that names its predecessor's nonce is the one that comes after the tail."""
    return position[:2] == (tail.epoch, tail.offset + 1) and previous == tail.nonce


def position_of(id: bytes, link: bytes | None) -> tuple[Position, str | None]:
    """Read an entry's place and its predecessor's nonce; None for that, and a nonce of zeros, if it is none of ours."""
    epoch, _, offset = id.partition(b"-")
    nonces = _LINK.fullmatch(link or b"")
    if nonces is None:
        return Position(int(epoch), int(offset), GENESIS), None
    return Position(int(epoch), int(offset), nonces[1].decode()), nonces[2].decode()


def named(id: bytes, fields: list[bytes]) -> tuple[str, str]:
    """Name an entry: its id and its nonce."""
    return id.decode(), fields[1][:8].decode("latin-1")


def route_of(packet: Packet, sent: float) -> str:
    """Write down whom a packet is for, and when it was sent, in seconds since 1970."""
    route: dict[str, Any] = {
        "t": round(sent, 4),
        "z": None if packet.zone is ALL else packet.zone,
        "c": packet.client_id,
        "x": sorted(packet.exclude),
    }
    if isinstance(packet, Command):
        route["o"] = [packet.what, packet.session_id, packet.data, packet.version]
    return json.dumps({name: value for name, value in route.items() if value}, ensure_ascii=False)


def entry_of(position: Position, previous: str, fields: dict[bytes, bytes]) -> Entry:
    """Read an entry; one that is not ours becomes a comment."""
    body = fields.get(b"d", b"")
    try:
        route = json.loads(fields[b"r"])
        packet, sent = _packet_of(route, body, position), float(route.get("t", 0))
    except (KeyError, ValueError, TypeError, AttributeError):
        logger.error("entry %s of the log on Redis was not written by ssehub", position)
        packet, sent = Packet(Message(comment="an entry that cannot be read"), broadcast=True), 0.0
        body = packet.encode()
    return Entry(packet, position, previous, body, sent)


def _packet_of(route: dict[str, Any], body: bytes, position: Position) -> Packet:
    message, zone, client_id = Message.decode(body), route.get("z", ALL), route.get("c")
    if "o" in route:
        what, session_id, data, version = route["o"]
        version = (int(version[0]), int(version[1])) if version else (position.epoch, position.offset)
        return Command(message, zone, client_id, what=what, session_id=session_id, data=data, version=version)
    return Packet(message, zone, client_id, client_id is None, frozenset(route.get("x", ())))
