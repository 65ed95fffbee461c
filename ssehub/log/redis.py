"""RedisLog: one log for many processes, in one Redis stream."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from ssehub.exceptions import LogError
from ssehub.log.base import Gap, Log, Page
from ssehub.log.packet import ALL, Entry, Packet, Receipt, check_name
from ssehub.log.position import GENESIS, Position, new_nonce
from ssehub.log.ring import Ring
from ssehub.wire import Message

logger = logging.getLogger("ssehub")

#: Milliseconds a read waits for the next entry; then the log's end is looked at: a log that was rolled back would leave
#: a reader waiting for a place it may not reach for long.
_BLOCK = 1000
#: Entries fetched at a time.
_PAGE = 1000
#: Seconds between attempts to reach a server, at the most.
_LONGEST_WAIT = 2.0
#: Seconds an append waits for its entry to come back to this process.
_ECHO = 1.0
_LATER = re.compile(r"\b(READONLY|LOADING|TRYAGAIN|CLUSTERDOWN|MASTERDOWN|NOREPLICAS|BUSY)\b")
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
_TOP = _BEGIN + "return last()"
#: Arguments: the nonce, the route, the message, the size; whether it may have been written before, and the id and nonce
#: of an entry that is older: from there on it is looked for. The answer is the id and the nonces; nothing if that older
#: entry is gone, and with it perhaps what is looked for.
_APPEND = (
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


class Broken(Exception):
    """What the stream holds does not follow what was read from it."""


class RedisLog(Log):
    """Keep the log in a Redis stream that any number of processes append to and follow.

    Each process follows the stream with one connection, and keeps the newest entries in memory, where its connections
    read them. A process that only sends follows nothing: it opens one connection for each thread that sends.

    The entries' ids in the stream are ``<epoch>-<offset>``; each names its predecessor's nonce, so that a log that was
    lost, rolled back or written anew is told as a gap. Needs Redis 6.2, or Valkey, with one node for writing.

    :param server: a URL (``redis://localhost:6379/0``, ``rediss://``, ``unix://``), or a ``redis.Redis`` whose
        connection settings are to be used; its own connections are not.
    :param name: the name of the log; the stream's key is ``{name}:log``.
    :param size: entries kept at the most, in Redis and in each process.
    :param timeout: seconds an append may take before it is a :class:`~ssehub.LogError`.
    :raises ValueError: if a number is not positive, or the name or the URL is none.
    """

    shared = True

    def __init__(
        self, server: str | redis.Redis, *, name: str = "ssehub", size: int = 10_000, timeout: float = 5.0
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, not {timeout}")
        client = redis.Redis.from_url(server) if isinstance(server, str) else server
        self._pool_class = client.connection_pool.connection_class
        self._settings = dict(client.connection_pool.connection_kwargs)
        self._key = f"{{{check_name('name', name)}}}:log"
        self._size = size
        self._timeout = timeout
        self._renew()

    def _renew(self) -> None:
        """Make what belongs to one process."""
        self._process = os.getpid()
        self._lock = threading.RLock()
        # What redis-py sends again by itself after a lost connection it may have sent before: entries come twice.
        self._sending = self._connect(socket_timeout=self._timeout, socket_connect_timeout=self._timeout)
        self._append = self._sending.register_script(_APPEND)
        self._ask = self._sending.register_script(_TOP)
        #: An entry that was there before whatever is sent next: its id in the stream and its nonce.
        self._known: tuple[str, str] | None = None
        self._follower: _Follower | None = None
        self._closed = False

    def _connect(self, **settings: Any) -> redis.Redis:
        plain = {**self._settings, "retry": Retry(NoBackoff(), 0), "decode_responses": False, **settings}
        for name in ("retry_on_timeout", "retry_on_error"):
            plain.pop(name, None)
        return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=self._pool_class, **plain))

    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position], None]) -> None:
        """Begin to deliver; see :meth:`Log.start`. The stream is read at once, and followed in a thread from then on.

        :raises LogError: if Redis cannot be reached, or a hub of this process uses this log.
        """
        if self._process != os.getpid():  # the parent's lock may have been held
            self._renew()
        with self._lock:
            if self._closed:
                self._renew()
            if self._follower is not None:
                raise LogError("this log belongs to another hub already; give each hub a log of its own")
            reading = self._connect(socket_timeout=_BLOCK / 1000 + self._timeout, socket_connect_timeout=self._timeout)
            follower = _Follower(reading, self._key, self._size, deliver, broken)
            try:
                follower.load()
            except RedisError as error:
                raise LogError(f"the log cannot be read: {error}") from error
            self._follower = follower
            follower.start()

    def append(self, packet: Packet) -> Receipt:
        """Add a packet; see :meth:`Log.append`. Where this process follows the log, its own delivery is waited for.

        :raises LogError: if Redis could not be reached in time. It is not known then whether the message was written.
        """
        if self._process != os.getpid():
            self._renew()
        if self._closed:
            raise LogError("the log is closed")
        body = packet.encode()
        nonce = new_nonce()
        follower = self._follower
        if follower is not None:
            follower.expect(nonce)
        try:
            position = self._send(nonce, _route(packet), body)
            queued = 0 if follower is None else follower.await_echo(nonce, min(_ECHO, self._timeout))
        finally:
            if follower is not None:
                follower.forget(nonce)
        own_id = packet.message.id
        return Receipt(str(position) if own_id is None else own_id, queued)

    def _send(self, nonce: str, route: str, body: bytes) -> Position:
        deadline = time.monotonic() + self._timeout
        known = self._known
        may_be_written = False
        attempt = 0
        while True:
            attempt += 1
            try:
                if known is None:
                    known = self._known = _named(*self._ask(keys=[self._key]))
                # How many others have written since the first attempt nobody knows.
                arguments: list[Any] = [nonce, route, body, self._size, int(may_be_written), *known]
                may_be_written = True
                answer = self._append(keys=[self._key], args=arguments)
                break
            except (RedisError, OSError) as error:
                wait = random.uniform(0.5, 1.0) * min(0.01 * 2**attempt, 0.5)
                if not _may_pass(error) or time.monotonic() + wait > deadline:
                    raise LogError(f"the message was not accepted: {error}") from error
                time.sleep(wait)
        if not answer:
            self._known = None
            raise LogError("the log was lost or trimmed while the message was sent; nobody knows whether it was in it")
        self._known = _named(answer[0], [b"h", answer[1]])
        return _position(*answer)[0]

    def read(self, after: Position, limit: int) -> Page:
        """Read on from a position; see :meth:`Log.read`. What this process holds in memory is read."""
        return self._ring.read(after, limit)

    def locate(self, last_event_id: str) -> Position | Gap:
        """Find the place an id names; see :meth:`Log.locate`."""
        return self._ring.locate(last_event_id)

    def tail(self) -> Position:
        """Return the place of the newest entry delivered in this process."""
        follower = self._follower
        return self._ring.tail if follower is None else follower.delivered

    def oldest(self) -> Position:
        """Return the place before the oldest entry that this process holds."""
        return self._ring.oldest()

    def close(self) -> None:
        """Stop following, and let go of the connections; what is held can still be read. Idempotent."""
        with self._lock:
            self._closed = True
            follower = self._follower
        if follower is not None:
            follower.close()
        self._sending.connection_pool.disconnect()

    @property
    def _ring(self) -> Ring:
        follower = self._follower
        if follower is None:
            raise LogError("the log is not started")
        return follower.ring


def _may_pass(error: Exception) -> bool:
    """Tell whether it may work a little later: the server is away, starting, or not the one that takes writes."""
    if isinstance(error, redis.AuthenticationError):
        return False
    # Within a script's error the kind is only in its text.
    return not isinstance(error, redis.ResponseError) or _LATER.search(str(error)) is not None


class _Follower:
    """Follow a stream in a thread, ``ssehub-redis``, and keep what it holds in memory."""

    def __init__(
        self,
        client: redis.Redis,
        key: str,
        size: int,
        deliver: Callable[[Entry], int],
        broken: Callable[[Position], None],
    ) -> None:
        self._client = client
        self._key = key
        self._size = size
        self._deliver = deliver
        self._broken = broken
        self._top = client.register_script(_TOP)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ssehub-redis", daemon=True)
        #: Of the appends that wait for their entry: its nonce, and how many connections it was due to.
        self._echoes: dict[str, int | None] = {}
        self._echoed = threading.Condition()

    def load(self) -> None:
        """Read all that the stream holds."""
        self.ring = self._whole()
        self.delivered = self.ring.tail

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        with self._echoed:
            self._echoed.notify_all()
        while self._thread.is_alive() and threading.current_thread() is not self._thread:
            # Wakes the thread if it is blocked in a read; it may be just about to begin one.
            self._client.connection_pool.disconnect()
            self._thread.join(0.05)
        self._client.connection_pool.disconnect()

    def expect(self, nonce: str) -> None:
        with self._echoed:
            self._echoes[nonce] = None

    def await_echo(self, nonce: str, timeout: float) -> int:
        """Wait until an entry was delivered here; return to how many connections it was due, 0 if it did not come."""
        with self._echoed:
            self._echoed.wait_for(lambda: self._echoes.get(nonce) is not None or self._closed.is_set(), timeout)
            return self._echoes.get(nonce) or 0

    def forget(self, nonce: str) -> None:
        with self._echoed:
            self._echoes.pop(nonce, None)

    def _run(self) -> None:
        failures = 0
        while not self._closed.is_set():
            try:
                self._catch_up()
                if failures:
                    logger.warning("the log on Redis is back")
                failures = 0
                self._follow()
            except Broken:
                continue
            except Exception as error:  # whatever it is, the thread goes on: nobody would start another
                if self._closed.is_set():
                    return
                failures += 1
                if failures == 1:
                    unforeseen = not isinstance(error, RedisError | OSError)
                    logger.warning("the log on Redis cannot be followed: %r", error, exc_info=unforeseen)
                self._closed.wait(random.uniform(0.5, 1.0) * min(0.05 * 2**failures, _LONGEST_WAIT))

    def _follow(self) -> None:
        """Deliver entries as they come, until something is wrong."""
        while not self._closed.is_set():
            tail = self.ring.tail
            answer: Any = self._client.xread({self._key: f"{tail.epoch}-{tail.offset}"}, count=_PAGE, block=_BLOCK)
            entries = (answer[0][1] if isinstance(answer, list) else next(iter(answer.values()))[0]) if answer else []
            if not entries and self._end() != tail:
                raise Broken
            for id, fields in entries:
                self._take(id, fields)

    def _catch_up(self) -> None:
        """Take what has come since, or, where the stream does not go on from here, all it holds."""
        try:
            tail = self.ring.tail
            entries: Any = self._client.xrange(self._key, min=f"{tail.epoch}-{tail.offset}", count=_PAGE)
            if entries and _position(entries[0][0], entries[0][1].get(b"h"))[0] == tail:
                del entries[0]
            elif not entries:
                raise Broken
            for id, fields in entries:
                self._take(id, fields)
        except Broken:
            self.ring = self._whole()
            self.delivered = self.ring.tail
            self._broken(self.ring.tail)

    def _take(self, id: bytes, fields: dict[bytes, bytes]) -> None:
        """Deliver the entry that comes next; anything else is not that."""
        if not _follows(*_position(id, fields.get(b"h")), self.ring.tail):
            raise Broken
        entry = _entry(id, fields)
        self.ring.keep(entry)
        queued = self._deliver(entry)
        self.delivered = entry.position
        if entry.position.nonce in self._echoes:
            with self._echoed:
                self._echoes[entry.position.nonce] = queued
                self._echoed.notify_all()

    def _end(self) -> Position:
        id, fields = self._top(keys=[self._key])
        return _position(id, fields[1])[0]

    def _whole(self) -> Ring:
        """Read the whole stream, begun where there is none, and hold what at its end is of one piece."""
        ring = Ring(self._size, None, self._end())
        after = "-"
        while True:
            page: Any = self._client.xrange(self._key, min=after, count=_PAGE)
            for id, fields in page:
                position, previous = _position(id, fields.get(b"h"))
                if previous is None or not position.offset:
                    ring = Ring(self._size, None, position)
                    continue
                if not _follows(position, previous, ring.tail):
                    ring = Ring(self._size, None, Position(position.epoch, position.offset - 1, previous))
                ring.keep(_entry(id, fields))
            if len(page) < _PAGE:
                return ring
            after = f"({page[-1][0].decode()}"


def _follows(position: Position, previous: str | None, tail: Position) -> bool:
    return position[:2] == (tail.epoch, tail.offset + 1) and previous == tail.nonce


def _position(id: bytes, link: bytes | None) -> tuple[Position, str | None]:
    """Read an entry's place and its predecessor's nonce; None for that, and a nonce of zeros, if it is none of ours."""
    epoch, _, offset = id.partition(b"-")
    nonces = _LINK.fullmatch(link or b"")
    if nonces is None:
        return Position(int(epoch), int(offset), GENESIS), None
    return Position(int(epoch), int(offset), nonces[1].decode()), nonces[2].decode()


def _named(id: bytes, fields: list[bytes]) -> tuple[str, str]:
    return id.decode(), fields[1][:8].decode("latin-1")


def _route(packet: Packet) -> str:
    route = {"z": None if packet.zone is ALL else packet.zone, "c": packet.client_id, "x": sorted(packet.exclude)}
    return json.dumps({name: value for name, value in route.items() if value}, ensure_ascii=False)


def _entry(id: bytes, fields: dict[bytes, bytes]) -> Entry:
    position, previous = _position(id, fields.get(b"h"))
    body = fields.get(b"d", b"")
    try:
        route = json.loads(fields[b"r"])
        client_id = route.get("c")
        packet = Packet(
            Message.decode(body), route.get("z", ALL), client_id, client_id is None, frozenset(route.get("x", ()))
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        logger.error("entry %r of the log on Redis was not written by ssehub", id)
        packet = Packet(Message(comment="an entry that cannot be read"), broadcast=True)
        body = packet.encode()
    return Entry(packet, position, previous or GENESIS, body)
