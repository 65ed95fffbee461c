"""RedisLog: one log for many processes, in one Redis stream."""

from __future__ import annotations

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
from ssehub.log.packet import Entry, Packet, Receipt, check_name
from ssehub.log.position import Position, new_nonce
from ssehub.log.redis.follower import BLOCK, Follower
from ssehub.log.redis.presence import RedisPresence
from ssehub.log.redis.stream import APPEND, TOP, named, position_of, route_of
from ssehub.log.ring import Ring

#: Seconds an append waits for its entry to come back to this process.
_ECHO = 1.0
_LATER = re.compile(r"\b(READONLY|LOADING|TRYAGAIN|CLUSTERDOWN|MASTERDOWN|NOREPLICAS|BUSY)\b")


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
    :param lease: seconds after which a process that was killed is forgotten by the others.
    :raises ValueError: if a number is not positive, or the name or the URL is none.
    """

    shared = True

    def __init__(
        self,
        server: str | redis.Redis,
        *,
        name: str = "ssehub",
        size: int = 10_000,
        timeout: float = 5.0,
        lease: float = 15.0,
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        for what, seconds in (("timeout", timeout), ("lease", lease)):
            if not 0 < seconds < threading.TIMEOUT_MAX:
                raise ValueError(f"{what} must be a positive number of seconds, not {seconds}")
        client = redis.Redis.from_url(server) if isinstance(server, str) else server
        self._pool_class = client.connection_pool.connection_class
        self._settings = dict(client.connection_pool.connection_kwargs)
        self._name = check_name("name", name)
        self._key = f"{{{name}}}:log"
        self._size = size
        self._timeout = timeout
        self._lease = lease
        self._renew()

    def _renew(self) -> None:
        """Make what belongs to one process."""
        self._process = os.getpid()
        self._lock = threading.RLock()
        # What redis-py sends again by itself after a lost connection it may have sent before: entries come twice.
        self._sending = self._connect(socket_timeout=self._timeout, socket_connect_timeout=self._timeout)
        self._presence = RedisPresence(self._sending, self._name, self._lease)
        self._append = self._sending.register_script(APPEND)
        self._ask = self._sending.register_script(TOP)
        #: An entry that was there before whatever is sent next: its id in the stream and its nonce.
        self._known: tuple[str, str] | None = None
        self._follower: Follower | None = None
        self._closed = False
        self._asking = threading.Lock()
        #: When the stream's end was last asked for (``time.monotonic()``), and why this process did not get there.
        self._asked = 0.0
        self._answer: Exception | None = None

    def _connect(self, **settings: Any) -> redis.Redis:
        plain = {**self._settings, "retry": Retry(NoBackoff(), 0), "decode_responses": False, **settings}
        for name in ("retry_on_timeout", "retry_on_error"):
            plain.pop(name, None)
        return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=self._pool_class, **plain))

    @property
    def presence(self) -> RedisPresence:  # type: ignore[override]
        """Who is connected to the hub's other processes."""
        if self._process != os.getpid():
            self._renew()
        return self._presence

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
            reading = self._connect(socket_timeout=BLOCK / 1000 + self._timeout, socket_connect_timeout=self._timeout)
            follower = Follower(reading, self._key, self._size, deliver, broken)
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
            position = self._send(nonce, route_of(packet), body)
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
                    known = self._known = named(*self._ask(keys=[self._key]))
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
        self._known = named(answer[0], [b"h", answer[1]])
        return position_of(*answer)[0]

    def read(self, after: Position, limit: int) -> Page:
        """Read on from a position; see :meth:`Log.read`. What this process holds in memory is read.

        A place that is strange here may just be newer, because another process has followed faster. So before it is
        called a gap, this process catches up.
        """
        page = self._ring.read(after, limit)
        if page.gap is None or page.gap.reason == "trimmed":
            return page
        self._catch_up()
        return self._ring.read(after, limit)

    def locate(self, last_event_id: str) -> Position | Gap:
        """Find the place an id names; see :meth:`Log.locate`. If it is unknown here, this process catches up."""
        place = self._ring.locate(last_event_id)
        if not isinstance(place, Gap):
            return place
        self._catch_up()
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
        self._presence.close()
        self._sending.connection_pool.disconnect()

    def _catch_up(self) -> None:
        """Wait until what is held here reaches to where the stream ends now.

        :raises LogError: if Redis cannot be reached, or the follower does not get there in time.
        """
        came = time.monotonic()
        with self._asking:  # one asks; what it learns holds for all who came before it began
            if self._asked < came:
                self._asked = time.monotonic()
                self._answer = self._await_end()
            answer = self._answer
        if answer is not None:
            raise LogError(f"the log cannot be read: {answer}") from answer

    def _await_end(self) -> Exception | None:
        follower = self._follower
        if follower is None or self._closed:
            return LogError("the log is closed")
        renewals = follower.renewals
        try:
            id, fields = self._ask(keys=[self._key])
            follower.await_end(position_of(id, fields[1])[0], renewals, self._timeout)
        except (RedisError, OSError) as error:
            return error
        return None

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
