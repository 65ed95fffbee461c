"""Listener: lets the follower wait until something was written.

Whoever appends sends a notification on the log's channel. It has no content, because the size is limited and the table
has the entry. A notification may be lost, so the follower also looks by itself from time to time.

Some poolers, such as PgBouncer in transaction mode, accept LISTEN and never deliver a notification. So the listener
sends a notification to itself through another connection. Until it comes, the follower looks often. If it does not
come in a second, this is logged, and the follower goes on looking often. Only a notification that comes while no
statement runs shows that they are delivered: a pooler may pass on those of another client together with an answer.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable

import psycopg

from ssehub.log.postgres.connection import Connection
from ssehub.logger import logger

#: The maximum number of seconds between two looks of the follower, if notifications are delivered.
_LOOK = 1.0
#: The same, if they are not delivered. Precedent: the SQLite log.
_LOOK_OFTEN = 0.05
#: The maximum number of seconds that the listener's own notification may take.
_PROBE = 1.0


class Listener:
    """Waits for notifications on the follower's connection. Only the follower may call this, except where noted.

    :param channel: the name of the channel.
    :param listen: the statement that listens on the channel.
    :param probe: sends a notification with a content, on another connection.
    :param is_own: returns whether a process of the server belongs to a connection of this process, which delivers its
        own entries.
    """

    def __init__(self, channel: str, listen: str, probe: Callable[[str], None], is_own: Callable[[int], bool]) -> None:
        self._channel = channel
        self._listen = listen
        self._probe = probe
        self._is_own = is_own
        self._content = secrets.token_hex(8)
        #: Whether notifications are delivered; None while the probe is under way.
        self.delivers: bool | None = None
        self._told = False
        #: When the probe was sent (``time.monotonic()``); None if one has to be sent.
        self._probed: float | None = None
        self._woken = threading.Event()
        self._ears: tuple[socket.socket, socket.socket] | None = None

    def begin(self, connection: Connection) -> None:
        """Listen on a new connection. A standby cannot listen."""
        self._probed = None
        try:
            connection.execute(self._listen)
        except psycopg.errors.ReadOnlySqlTransaction:
            self._give_up("a standby sends none")
            return
        self.delivers = None
        connection.add_notify_handler(lambda notify: self._hear(notify.pid, notify.payload))

    def wait(self, connection: Connection) -> None:
        """Wait until something was written, or it is time to look."""
        if self.delivers is None and self._probed is None:
            self._probed = time.monotonic()
            self._probe(self._content)
        deadline = time.monotonic() + (_LOOK if self.delivers else _LOOK_OFTEN)
        with selectors.DefaultSelector() as selector:
            selector.register(connection.pgconn.socket, selectors.EVENT_READ)
            ear = self._ear()
            selector.register(ear, selectors.EVENT_READ)
            self._take(connection)  # what came together with the answer to a statement
            while not self._woken.is_set():
                found = selector.select(max(0.0, deadline - time.monotonic()))
                for key, _ in found:
                    self._drain(ear) if key.fileobj is ear else self._receive(connection)
                # Notifications of this process's own entries may come all the time. They do not end the wait.
                if not found or time.monotonic() > deadline:
                    break
        self._woken.clear()
        if self.delivers is None and time.monotonic() > (self._probed or 0.0) + _PROBE:
            self._give_up("perhaps there is a pooler on the way; give the server's own address as listen_dsn")

    def wake(self) -> None:
        """End the follower's wait. Any thread may call this. Never blocks, never raises."""
        self._woken.set()
        ears = self._ears
        if ears is not None:
            with contextlib.suppress(OSError):  # full: it wakes anyway
                ears[1].send(b".")

    def close(self) -> None:
        """Close the sockets, after the follower has ended."""
        ears, self._ears = self._ears, None
        _close(ears or ())

    def _ear(self) -> socket.socket:
        if self._ears is None:
            ears = socket.socketpair()
            for ear in ears:
                ear.setblocking(False)
            self._ears = ears
            weakref.finalize(self, _close, ears)  # for a log that is not closed, or that is used after its end
        return self._ears[0]

    def _drain(self, ear: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while ear.recv(4096):
                pass
        self._woken.set()

    def _receive(self, connection: Connection) -> None:
        """Take the notifications that come while no statement runs."""
        connection.pgconn.consume_input()
        if self._take(connection) and self.delivers is not True:
            self._succeed()

    def _take(self, connection: Connection) -> bool:
        """Take the notifications that libpq has received. Return whether there were some."""
        found = False
        while notify := connection.pgconn.notifies():
            found = True
            self._hear(notify.be_pid, notify.extra.decode(errors="replace"))
        return found

    def _hear(self, pid: int, content: str) -> None:
        """Wake, unless the notification is a probe, or tells of an entry of this process."""
        if not content and not self._is_own(pid):
            self._woken.set()

    def _succeed(self) -> None:
        self.delivers = True
        if self._told:
            self._told = False
            logger.info("PostgreSQL delivers notifications again")

    def _give_up(self, why: str) -> None:
        self.delivers = False
        if not self._told:
            self._told = True
            logger.warning(
                "PostgreSQL does not deliver notifications on %r (%s); the log is read every %g s instead",
                self._channel, why, _LOOK_OFTEN,
            )  # fmt: skip


def _close(ears: Iterable[socket.socket]) -> None:
    for ear in ears:
        ear.close()
