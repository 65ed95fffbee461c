"""SQLLog: the part of a log in a SQL database that does not depend on the database."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ssehub.background import Background
from ssehub.events import Message
from ssehub.exceptions import LogError
from ssehub.log.base import Log, Readable
from ssehub.log.delegating import Delegating
from ssehub.log.packet import ALL, All, Command, Entry, Packet, Receipt
from ssehub.log.position import Position, new_nonce
from ssehub.log.sql.presence import SQLPresence
from ssehub.log.sql.replica import SQLReplica
from ssehub.log.sql.row import letter_of
from ssehub.log.sql.store import Store
from ssehub.log.sql.trimming import Trimming
from ssehub.process_local import ProcessLocal

#: The minimum number of seconds that ``close`` waits for each thread, even with a shorter timeout: enough to notice the
#: closing.
_LEAVE = 0.1
#: The maximum number of seconds that an append waits until this process has read its own entry.
_ECHO = 1.0


class SQLLog(ProcessLocal, Delegating, Log):
    """A log in the tables of a SQL database. The parameters are those of :class:`~ssehub.SQLiteLog`."""

    shared = True

    def __init__(self, *, size: int, zone_size: int | None, ttl: float | None, timeout: float, lease: float) -> None:
        for what, number in (("size", size), ("zone_size", zone_size)):
            if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
                raise TypeError(f"{what} must be an int, not {number!r}")
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        if zone_size is not None and not 1 <= zone_size <= size:
            raise ValueError(f"zone_size must be 1 to size, which is {size}, not {zone_size}")
        for what, seconds in (("timeout", timeout), ("lease", lease)):
            if not 0 < seconds < threading.TIMEOUT_MAX:
                raise ValueError(f"{what} must be a positive number of seconds, not {seconds}")
        if ttl is not None and not ttl > 0:
            raise ValueError(f"ttl must be a positive number of seconds, not {ttl}")
        self._bounds = size, zone_size, ttl
        self._timeout = timeout
        self._lease = lease
        super().__init__()

    @abstractmethod
    def make_store(self) -> Store:
        """Return the log's store for this process. It connects to nothing yet."""

    def _renew(self) -> None:
        """Make the objects of this process."""
        self._store = self.make_store()
        self._replica = SQLReplica(self._store, *self._bounds, self._timeout)
        self._trimming = Trimming(self._store, *self._bounds)
        self._presence = SQLPresence(self._store, self._lease)
        self._callbacks: tuple[Callable[[Entry], int], Callable[[Position, Sequence[Command]], None]] | None = None
        self._starting = threading.Lock()
        #: The threads that append. The locks on the way are not reentrant.
        self._appending: set[int] = set()
        #: Whether the follower found nothing when it looked last.
        self._is_idle = True
        self._follower = Background(
            "ssehub-follower",
            self._follow,
            (f"the log in {self._store.name} cannot be followed", f"the log in {self._store.name} is back"),
            expected=(*self._store.errors, LogError),
        )
        self._closed = False

    @property
    def presence(self) -> SQLPresence:  # type: ignore[override]
        """The connections of the hub's other processes."""
        self._begin()
        return self._presence

    @property
    def view(self) -> Readable:
        """The entries that this process holds."""
        self._begin()
        return self._replica

    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Command]], None]) -> None:
        """Start to deliver entries; see :meth:`Log.start`. The table is read at once, and followed from then on.

        :raises LogError: if the database cannot be reached or used, or another hub of this process uses this log.
        """
        self._begin()
        if self._closed:
            self._renew()
        with self._starting:
            if self._callbacks is not None:
                raise LogError("this log belongs to another hub already; give each hub its own log")
            self._callbacks = deliver, broken
        try:
            with self._translating("the log cannot be read"):
                self._replica.open(lambda end: broken(end, ()))
            self._start_follower()
        except BaseException:
            self._callbacks = None
            raise

    def append(self, packet: Packet) -> Receipt:
        """Add a packet; see :meth:`Log.append`. If this process follows the log, deliver the entry before returning.

        :raises LogError: if the database did not accept the message in time.
        """
        self._begin()
        if self._closed:
            raise LogError("the log is closed")
        me = threading.get_ident()
        if me in self._appending:
            raise LogError("a signal handler cannot send while it interrupts a thread that sends")
        try:
            self._appending.add(me)
            return self._append(packet)
        finally:
            self._appending.discard(me)

    def append_within(self, packet: Packet, connection: Any) -> Receipt:
        """Add a packet in the caller's transaction; see :meth:`Log.append_within`."""
        self._begin()
        if self._closed:
            raise LogError("the log is closed")
        letter = letter_of(packet, new_nonce(), time.time())
        self._store.append_within(letter, connection)
        self._store.wake(own=True)
        return Receipt(packet.message.id or "", 0)

    @property
    def unreadable(self) -> int:
        """The number of entries that were skipped because they cannot be read."""
        self._begin()
        return self._replica.unreadable

    @property
    def failing(self) -> Mapping[str, str]:
        """The background tasks (``follower``, ``presence``) that fail now, by name, with the reason."""
        self._begin()
        follower = self._follower.failure
        failures = {"follower": None if follower is None else str(follower), "presence": self._presence.failure}
        return {name: failure for name, failure in failures.items() if failure is not None}

    def lag(self) -> int:
        """Return how many entries of the log were not delivered in this process yet.

        :raises LogError: if the database cannot be reached.
        """
        self._begin()
        with self._translating("the log cannot be read"):
            return self._replica.lag() if self._replica.is_open else 0

    def cursor(self, zones: Sequence[str] | All = ALL) -> Position:
        """Return the current end of the log.

        :raises LogError: if the database cannot be reached.
        """
        self._begin()
        with self._translating("the log cannot be read"):
            return self._replica.end() if self._replica.is_open else self._store.end()

    def migration(self, role: str | None = None) -> str:
        """Return the SQL that creates the tables of the log, if they do not exist. Connects to nothing.

        :param role: a user of the database who gets the rights that the application needs.
        :raises ValueError: if there is a role, and the database has no users.
        """
        self._begin()
        return self._store.migration(role)

    def migrate(self, role: str | None = None) -> None:
        """Create the tables of the log, unless they exist; see :meth:`migration`. Otherwise the first use does it.

        :raises LogError: if the database cannot be reached, or does not allow it.
        """
        self._begin()
        with self._translating("the tables cannot be created"):
            self._store.migrate(role)

    def close(self, timeout: float | None = None) -> None:
        """Stop following the log, and close the connections. Entries in memory can still be read. Idempotent.

        :param timeout: the maximum number of seconds that this may take; None for the ``timeout`` of the log.
        """
        self._begin()
        self._closed = True
        store, presence, follower = self._store, self._presence, self._follower
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        follower.end()
        self._replica.close()
        store.interrupt()
        presence.close(max(_LEAVE, deadline - time.monotonic()))
        follower.join(max(_LEAVE, deadline - time.monotonic()))
        store.close()
        presence.join(_LEAVE)

    def _append(self, packet: Packet) -> Receipt:
        deadline = time.monotonic() + self._timeout
        letter = letter_of(packet, new_nonce(), time.time())
        progress, callbacks = self._replica.progress, self._callbacks
        is_followed = callbacks is not None and self._replica.is_open
        if is_followed:
            progress.expect(letter.nonce)
        try:
            try:  # not a context manager, because this is the path of every message
                position, previous = self._store.append(letter, deadline)
            except Exception as error:
                self._translate(error, "the message was not accepted")
                raise
            if letter.once is not None and position.nonce != letter.nonce:
                return self._repeat(packet, position)
            if isinstance(packet, Command):
                packet = packet.versioned_by(position)
            entry = Entry(packet, position, previous, letter.body, letter.sent)
            queued = self._deliver_own(entry, callbacks[0]) if callbacks is not None and is_followed else 0
            self._store.wake(own=queued is None or not is_followed)
            if queued is None:
                wait = max(0.0, min(deadline, time.monotonic() + _ECHO) - time.monotonic())
                queued = progress.await_echo(letter.nonce, wait)
        finally:
            if is_followed:
                progress.forget(letter.nonce)
        if not is_followed:
            self._trim(position.offset)
        return Receipt(entry.id, queued)

    def _repeat(self, packet: Packet, position: Position) -> Receipt:
        """Return the receipt for a packet whose key belongs to another entry."""
        statement = f"SELECT body FROM {self._store.prefix}_entries WHERE number = ?"
        with self._translating("the log cannot be read"):
            rows = self._store.query(statement, [position.offset])
        first = packet.message  # if the entry was dropped just now, or another program wrote it
        with contextlib.suppress(ValueError, TypeError, IndexError):
            first = Message.decode(bytes(rows[0][0]))
        return Receipt(first.id or str(position), 0, first)

    def _deliver_own(self, entry: Entry, deliver: Callable[[Entry], int]) -> int | None:
        """Deliver an entry of this process. Return the number of its connections; None if the follower delivers it."""
        queued = self._replica.add_own(entry, deliver)
        if queued is None:
            with contextlib.suppress(LogError):  # reported by `failing`
                self._start_follower()
        return queued

    def _start_follower(self) -> None:
        try:
            self._follower.start()
        except RuntimeError as error:
            raise LogError(f"the log cannot be followed: {error}") from error

    def _trim(self, end: int) -> None:
        """Drop old entries, in a process that does not follow the log."""
        if self._trimming.is_due(end):
            with contextlib.suppress(*self._store.errors, LogError):  # the next process that appends tries again
                self._trimming.trim(end)

    def _follow(self) -> None:
        """Wait for new entries, and deliver them. Runs in the follower's thread."""
        callbacks = self._callbacks
        if callbacks is None:
            raise LogError("the log could not be started")
        if self._follower.failure is None:
            self._store.wait(self._is_idle)
        if self._follower.closed:
            return
        self._is_idle = not self._replica.look(*callbacks)
        end = self._replica.end().offset
        if self._store.writable and self._trimming.is_due(end):
            self._trimming.trim(end)

    @contextlib.contextmanager
    def _translating(self, what: str) -> Iterator[None]:
        """Turn the errors of the database into LogError. After the log was closed, turn all errors into LogError.

        :param what: the beginning of the error's text.
        """
        try:
            yield
        except Exception as error:
            self._translate(error, what)
            raise

    def _translate(self, error: Exception, what: str) -> None:
        """Raise the LogError for an error of the database. Return if the error itself has to be raised."""
        if isinstance(error, LogError):
            return
        if self._closed:
            raise LogError("the log is closed") from error
        if isinstance(error, self._store.errors):
            raise LogError(f"{what}: {error}") from error
