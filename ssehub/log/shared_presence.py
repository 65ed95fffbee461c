"""SharedPresence: publishes the connections of this process in a store that the hub's processes share.

A thread collects the changes, writes them, and renews the lease of the process. If a process is killed, its lease
expires, and its records are ignored from then on. The other processes delete them: each time a process renews its
lease, it checks the leases of others.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ssehub.background import Background
from ssehub.exceptions import LogError
from ssehub.log.presence import Here, Local, Presence, Process
from ssehub.logger import logger

#: Seconds that changes are collected before they are written. So a thousand clients that connect at once take one
#: write.
_GATHER = 0.005
#: The minimum number of seconds after an outage before productions of others count as lost: a process tries again after
#: two seconds at most.
_RETURN = 3.0
#: The maximum number of seconds that a new connection waits until other processes can see it.
_SETTLE = 1.0

#: Changes of the sessions of some clients: by client and session, the session; None if it has ended.
Changes = dict[str, dict[str, Here | None]]


class SharedPresence(Presence):
    """The part of a presence that does not depend on the store. A subclass reads and writes the store.

    :param store: the name of the store in log messages.
    :param lease: seconds after which a process that does not renew its lease is forgotten.
    :param errors: the exceptions that the store raises if it cannot be reached.
    """

    def __init__(self, store: str, lease: float, errors: tuple[type[Exception], ...]) -> None:
        self._store = store
        self._lease = lease
        self.process: str = secrets.token_hex(8)
        self._local: Local | None = None
        self._measure: Callable[[], Mapping[str, Any]]
        #: Since when the lease was renewed without a failure (``time.monotonic()``).
        self._steady_since = 0.0
        self._lost: Callable[[Sequence[str]], None]
        #: The running productions of this process.
        self._productions: dict[str, None] = {}
        #: The statistics of this process when its lease was last renewed.
        self._stats: Mapping[str, Any] = {}
        self._changed = threading.Condition()
        #: The changes that are not written yet: by client, the sessions that were opened, or closed (None).
        self._dirty_clients: dict[str, dict[str, Here | None]] = {}
        self._dirty_zones: set[str] = set()
        #: The number of changes so far, and how many of them are written.
        self._noted = self._told = 0
        self._closed = False
        #: Whether the records of this process were deleted at the end.
        self._left = False
        #: Whether all connections have to be written, not only the changes.
        self._whole = True
        #: When the lease was last renewed (``time.monotonic()``).
        self._looked = 0.0
        self._background = Background(
            "ssehub-presence",
            self._keep,
            (f"the presence on {store} cannot be updated", f"the presence on {store} is back"),
            expected=(*errors, LogError),
            on_failure=self._lose,
        )

    @abstractmethod
    def write(self, itself: str, productions: str, changes: Changes, zones: Mapping[str, int], anew: bool) -> bool:
        """Write changes of this process, and renew its lease.

        :param itself: the record of the process: its host, pid, connections and statistics, as JSON.
        :param productions: the running productions of the process, as JSON.
        :param changes: the changed sessions by client. A client without changed sessions has new metadata.
        :param zones: the changed zones, with the number of connections in each.
        :param anew: whether to delete all old records of the process first.
        :returns: False if the process was unknown, because its lease had expired.
        """

    @abstractmethod
    def expired(self) -> list[tuple[str, str]]:
        """Return some processes whose leases have expired, each with its productions as JSON."""

    @abstractmethod
    def delete_expired(self, processes: Sequence[str]) -> None:
        """Delete the records of processes, if their leases have expired."""

    @abstractmethod
    def delete_own(self) -> None:
        """Delete the records of this process."""

    def start(
        self, local: Local, stats: Callable[[], Mapping[str, Any]], lost: Callable[[Sequence[str]], None]
    ) -> None:
        """Start to publish the connections of this process. The thread starts with the first change."""
        self._local, self._measure, self._lost = local, stats, lost

    def changed(self, one: Here, is_here: bool) -> None:
        """Publish that a connection of this process was opened or closed. Does not block."""
        self._note(one.client_id, {one.id: one if is_here else None}, one.zones)

    def renoted(self, client_id: str) -> None:
        """Publish that the metadata of a client of this process was replaced. Does not block."""
        self._note(client_id, {}, ())

    def produces(self, production: str, is_running: bool) -> None:
        """Publish that a production of this process has begun or ended. Does not block."""
        with self._changed:
            if is_running:
                self._productions[production] = None
            else:
                self._productions.pop(production, None)
        self._note(None, {}, ())

    def _note(self, client_id: str | None, sessions: Mapping[str, Here | None], zones: Sequence[str]) -> None:
        with self._changed:
            if self._closed or self._local is None:
                return
            if client_id is not None:
                self._dirty_clients.setdefault(client_id, {}).update(sessions)
            self._dirty_zones.update(zones)
            self._noted += 1
            self._changed.notify_all()
        with contextlib.suppress(RuntimeError):  # the next change tries again
            self._background.start()

    @property
    def failure(self) -> str | None:
        """Why changes cannot be written now; None if they can."""
        return None if self._background.failure is None else str(self._background.failure)

    def settle(self) -> bool:
        """Wait until the other processes can see all changes so far, a second at most."""
        with self._changed:
            noted = self._noted
            self._changed.wait_for(lambda: self._told >= noted or self._fails or self._closed, _SETTLE)
            return self._told >= noted

    def close(self, timeout: float) -> None:
        """Delete the records of this process, and end the thread.

        :param timeout: the maximum number of seconds that this may take.
        """
        with self._changed:
            was_closed, self._closed = self._closed, True
            if self._fails:
                self._background.end()
            self._changed.notify_all()
        self._background.join(timeout)
        self._background.end()
        if self._noted and not self._left and not was_closed:
            logger.warning(
                "other processes will see this one until its lease expires, because %s does not answer", self._store
            )

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended. Call :meth:`close` first.

        :param timeout: the maximum number of seconds to wait.
        """
        self._background.join(timeout)

    @property
    def _fails(self) -> bool:
        return self._background.failure is not None

    # The methods below run in the thread.

    def _keep(self) -> None:
        """Wait for changes, or until the lease has to be renewed. Then write the changes."""
        self._wait()
        if self._closed:
            self.delete_own()
            self._left = True
            self._background.end()
            return
        noted, clients, zones = self._take()
        there = self._tell(clients, zones)
        self._whole = not there  # this process was forgotten
        if there:
            with self._changed:
                self._told = noted
                self._changed.notify_all()

    def _lose(self) -> None:
        """After a failure, remember that all connections have to be written. Wake the threads that wait for a write."""
        self._whole = True
        with self._changed:
            self._changed.notify_all()

    def _wait(self) -> None:
        with self._changed:
            if not self._whole:
                patience = max(0.0, self._looked + self._lease / 3 - time.monotonic())
                self._changed.wait_for(lambda: self._closed or self._told < self._noted, patience)
        time.sleep(_GATHER)

    def _take(self) -> tuple[int, dict[str, dict[str, Here | None]], set[str]]:
        with self._changed:
            clients, self._dirty_clients = self._dirty_clients, {}
            zones, self._dirty_zones = self._dirty_zones, set()
            return self._noted, clients, zones

    def _tell(self, changes: Changes, names: set[str]) -> bool:
        """Write the changes, or all connections.

        :returns: False if the lease had expired, so that all connections have to be written.
        """
        assert self._local is not None
        whole = self._whole
        if whole:
            changes = {}
            for one in self._local.find():
                changes.setdefault(one.client_id, {})[one.id] = one
            names = set(self._local.zones())
        is_time = time.monotonic() > self._looked + self._lease / 3
        if is_time:
            self._stats = self._measure()
            if self._stats["log_lag"] is None:  # the store does not answer; do not wait for another timeout
                raise LogError(f"{self._store} does not answer")
        itself = json.dumps([socket.gethostname(), os.getpid(), self._local.count(), self._stats])
        zones = {zone: self._local.count(zone) for zone in names}
        with self._changed:
            productions = json.dumps(list(self._productions)) if self._productions else ""
        known = self.write(itself, productions, changes, zones, whole)
        if whole:
            self._steady_since = time.monotonic()
        if is_time:
            self._looked = time.monotonic()
            self._reap()
        return whole or known

    def _reap(self) -> None:
        """Report the productions of processes whose leases have expired, and then delete their records.

        After an outage of the store, all leases have expired. So give the others time to renew theirs.
        """
        may_judge = time.monotonic() > self._steady_since + max(self._lease, _RETURN)
        expired = [(process, productions) for process, productions in self.expired() if may_judge or not productions]
        for process, productions in expired:
            if productions:
                logger.warning("process %s has ended, and its productions are lost", process)
                with contextlib.suppress(ValueError):  # another program wrote them
                    self._lost([str(one) for one in json.loads(productions)])
        if expired:
            self.delete_expired([process for process, _ in expired])


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Turn the errors of a store into LogError. Clients of a store may raise any error if another thread closes them.

    :raises LogError: if the block raises an exception.
    """
    try:
        yield
    except LogError:
        raise
    except Exception as error:
        raise LogError(f"the connections of other processes cannot be read: {error}") from error


def process_of(id: str, itself: str | bytes) -> Process | None:
    """Decode the record of a process; None if it cannot be read, because another program wrote it."""
    try:
        host, pid, connections, stats = json.loads(itself)
        return Process(id, str(host), int(pid), int(connections), dict(stats))
    except Exception:
        logger.debug("the record of process %r cannot be read", id)
        return None
