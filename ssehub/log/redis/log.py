"""RedisLog: a log that many processes share, in one or several streams on Redis."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ssehub.exceptions import LogError
from ssehub.log.base import Log, Readable
from ssehub.log.delegating import Delegating
from ssehub.log.packet import ALL, All, Command, Entry, Packet, Receipt, check_name
from ssehub.log.position import MAX_PARTITIONS, Place, Places, Position, new_nonce
from ssehub.log.redis.link import ERRORS, Client, Link, disconnect
from ssehub.log.redis.partition import Partition
from ssehub.log.redis.partitions import Partitions
from ssehub.log.redis.presence import RedisPresence
from ssehub.log.redis.sender import Sender
from ssehub.log.redis.stream import stream_key
from ssehub.log.redis.writer import Unreachable, Writer
from ssehub.process_local import ProcessLocal
from ssehub.single_flight import SingleFlight

#: The minimum number of seconds that ``close`` waits for each thread, even with a shorter timeout: enough to notice the
#: closing.
_LEAVE = 0.1
#: The maximum number of seconds that an append waits until this process has read its own entry.
_ECHO = 1.0
#: A command may take ``timeout`` divided by this number, so that there is time for further attempts.
_ATTEMPTS = 4


class RedisLog(ProcessLocal, Delegating, Log):
    """A log in a stream on Redis. Any number of processes can append to it and follow it.

    Each process follows the stream with one connection. It keeps the newest entries in memory, and its clients are
    served from there. A process that only sends does not follow the stream. It opens one connection for each thread
    that sends, up to 50. Needs Redis 6.2 or Valkey.

    The ids of entries in the stream are ``<epoch>-<offset>``. Each entry also contains its own nonce and that of the
    entry before. So if the log is lost, rolled back or rewritten, this is noticed, and clients receive a gap.

    With several partitions, there is a stream for each partition, and a process follows only the partitions of its
    clients' zones. Each partition has its own order. Messages without a zone are written to all partitions. On a
    cluster, the partitions are on several nodes, and following a partition takes a thread and a connection.

    :param server: a URL (``redis://localhost:6379/0``, ``rediss://``, ``unix://``, or ``redis+cluster://`` with a node
        of a cluster), or a ``redis.Redis`` or ``RedisCluster`` whose connection settings are used. Its open connections
        are not used.
    :param name: the name of the log; the stream's key is ``{name}:log``.
    :param size: the maximum number of entries that a partition keeps, on Redis and in each process.
    :param timeout: the maximum number of seconds that an append may take before it raises :class:`~ssehub.LogError`,
        even if many threads send. A single attempt may take a quarter of this time.
    :param lease: seconds after which other processes forget a process that was killed.
    :param partitions: the number of streams over which the zones are spread. It must be the same in all processes. To
        change it, begin a new log.
    :param outbox: the maximum number of messages that may wait in this process while Redis is away; 0 for no outbox. If
        Redis cannot be reached for ``timeout`` seconds, or if other messages wait already, :meth:`append` adds the
        message to the outbox instead of raising an error. Its receipt has no id. When Redis is back, the messages are
        sent in order, each once. No client gets them before. :meth:`close` waits for them, by default up to ``timeout``
        seconds, and logs how many are lost.
    :raises ValueError: if a number is out of range, or the name or the URL is invalid.
    :raises TypeError: if an argument has the wrong type.
    """

    shared = True

    def __init__(
        self,
        server: str | Client,
        *,
        name: str = "ssehub",
        size: int = 10_000,
        timeout: float = 5.0,
        lease: float = 15.0,
        partitions: int = 1,
        outbox: int = 0,
    ) -> None:
        for what, number in (("size", size), ("partitions", partitions), ("outbox", outbox)):
            if not isinstance(number, int) or isinstance(number, bool):
                raise TypeError(f"{what} must be an int, not {number!r}")
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        if not 1 <= partitions <= MAX_PARTITIONS:
            raise ValueError(f"partitions must be 1 to {MAX_PARTITIONS}, not {partitions}")
        if outbox < 0:
            raise ValueError(f"outbox must not be negative, but is {outbox}")
        for what, seconds in (("timeout", timeout), ("lease", lease)):
            if not 0 < seconds < threading.TIMEOUT_MAX:
                raise ValueError(f"{what} must be a positive number of seconds, not {seconds}")
        self._link = Link(server)
        self._name = check_name("name", name)
        self._count = partitions
        self._size = size
        self._timeout = timeout
        self._lease = lease
        self._outbox_size = outbox
        super().__init__()

    def _renew(self) -> None:
        """Make the objects of this process."""
        self._connecting: SingleFlight[Client] = SingleFlight()
        self._client: Client | None = None
        self._sender = Sender(
            lambda: Writer(self._sending, self._name, self._count, self._size, self._timeout / _ATTEMPTS),
            lambda number: stream_key(self._name, number, self._count),
            self._outbox_size,
            self._timeout,
            self._link.is_cluster,
        )
        self._presence = RedisPresence(lambda: self._sending, self._name, self._lease)
        self._followed = Partitions(self._link, self._make_partition, self._sender.check, self._timeout)
        self._opening: SingleFlight[Readable] = SingleFlight()
        self._whole: Readable | None = None
        self._closed = False

    @property
    def presence(self) -> RedisPresence:  # type: ignore[override]
        """The connections of the hub's other processes."""
        self._begin()
        return self._presence

    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Command]], None]) -> None:
        """Start to deliver entries; see :meth:`Log.start`.

        A log with one partition is read at once, and followed in a thread from then on.

        :raises LogError: if Redis cannot be reached, or another hub of this process uses this log.
        """
        self._begin()
        if self._closed:
            self._renew()
        self._followed.start(deliver, broken)
        try:
            if self._count == 1:
                self._follow_all()
        except BaseException:
            self._followed.give_up()
            raise

    def append(self, packet: Packet) -> Receipt:
        """Add a packet; see :meth:`Log.append`. If this process follows the log, wait until it has read the entry.

        :raises LogError: if Redis did not answer in time. The message may have been written, or in some partitions.
        """
        self._begin()
        if self._closed:
            raise LogError("the log is closed")
        deadline = time.monotonic() + self._timeout
        nonce = new_nonce()
        numbers = range(self._count) if packet.zone is ALL else self.partitions((packet.zone,))
        here = self._followed.held(numbers)
        for partition in here:
            partition.progress.expect(nonce)
        try:
            with self._translating():
                posted = self._sender.post(packet, numbers, nonce, deadline)
            if here:
                self._followed.hasten()
            deadline = min(deadline, time.monotonic() + _ECHO * bool(posted.places))
            queued = 0
            for partition in here:
                if partition.number in posted.written:
                    queued += partition.progress.await_echo(nonce, max(0.0, deadline - time.monotonic()))
        finally:
            for partition in here:
                partition.progress.forget(nonce)
        return posted.receipt(packet, queued)

    @property
    def unsent(self) -> int:
        """The number of messages that wait in the outbox."""
        self._begin()
        return len(self._sender.outbox)

    @property
    def unreadable(self) -> int:
        """The number of entries that were skipped because they cannot be read."""
        self._begin()
        return self._followed.unreadable

    @property
    def failing(self) -> Mapping[str, str]:
        """The background tasks (``follower``, ``outbox``, ``presence``) that fail now, by name, with the reason."""
        self._begin()
        failures = {
            "follower": self._followed.failure,
            "outbox": self._sender.outbox.failure,
            "presence": self._presence.failure,
        }
        return {name: failure for name, failure in failures.items() if failure is not None}

    def lag(self) -> int:
        """Return how many entries of the followed partitions were not delivered in this process yet.

        :raises LogError: if Redis cannot be reached.
        """
        self._begin()
        with self._translating():
            return sum(partition.lag() for partition in self._followed.held(range(self._count)))

    def partitions(self, zones: Sequence[str]) -> tuple[int, ...]:
        """Return the numbers of the partitions that these zones belong to, in order."""
        return tuple(sorted({zlib.crc32(zone.encode()) % self._count for zone in zones}))

    def open(self, zones: Sequence[str]) -> Readable:
        """Return a reader's view of some zones; see :meth:`Log.open`."""
        self._begin()
        with self._translating():
            return self._followed.open(self.partitions(zones))

    def release(self, zones: Sequence[str]) -> None:
        """Undo one :meth:`open` of the same zones."""
        self._followed.release(self.partitions(zones))

    def cursor(self, zones: Sequence[str] | All = ALL) -> Place:
        """Return the current end of the log, for the members of some zones or of all zones.

        For partitions that this process does not follow, Redis is asked.

        :raises LogError: if Redis cannot be reached.
        """
        self._begin()
        numbers = range(self._count) if zones is ALL else self.partitions(zones)
        places = Places(self._place(number) for number in numbers)
        return places[0] if len(places) == 1 else places

    def close(self, timeout: float | None = None) -> None:
        """Stop following the streams, and close the connections. Entries in memory can still be read. Idempotent.

        First this waits until the outbox is empty. If the time is not enough, it logs how many messages are lost.

        :param timeout: the maximum number of seconds that this may take; None for the ``timeout`` of the log.
        """
        self._begin()
        self._closed = True
        outbox, followed, presence, client = self._sender.outbox, self._followed, self._presence, self._client
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        outbox.close(max(0.0, deadline - time.monotonic()))
        followed.close(max(_LEAVE, deadline - time.monotonic()))
        presence.close(max(_LEAVE, deadline - time.monotonic()))
        if client is not None:
            disconnect(client)
        outbox.join(_LEAVE)
        presence.join(_LEAVE)

    @property
    def _sending(self) -> Client:
        if self._client is None:
            return self._connecting.do(self._connect)
        return self._client

    def _connect(self) -> Client:
        if self._client is None:
            try:
                self._client = self._link.connect(self._timeout / _ATTEMPTS)
            except ERRORS as error:
                raise Unreachable(f"Redis cannot be reached: {error}") from error
        return self._client

    @contextmanager
    def _translating(self) -> Iterator[None]:
        """Turn the errors of Redis into LogError. After the log was closed, turn all errors into LogError."""
        try:
            yield
        except LogError:
            raise
        except Exception as error:
            if self._closed:
                raise LogError("the log is closed") from error
            if isinstance(error, ERRORS):
                raise LogError(f"the log cannot be read: {error}") from error
            raise

    def _place(self, number: int) -> Position:
        held = self._followed.held((number,))
        with self._translating():
            return held[0].end() if held else self._make_partition(number).fetch_end()

    def _make_partition(self, number: int) -> Partition:
        return Partition(number, self._sender.key(number), self._size, self._sending, self._timeout)

    @property
    def view(self) -> Readable:
        """All partitions together. They are followed from the first use until :meth:`close`."""
        return self._follow_all()

    def _follow_all(self) -> Readable:
        self._begin()
        if self._whole is None:
            with self._translating():
                return self._opening.do(self._open_all)
        return self._whole

    def _open_all(self) -> Readable:
        if self._whole is None:
            self._whole = self._followed.open(range(self._count))
        return self._whole
