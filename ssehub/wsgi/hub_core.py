"""HubCore: the state of a hub in each process, its statistics, and its end. Also a list of all hubs of a process."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from ssehub.hooks import Hook
from ssehub.log import Gap, Log, MemoryLog
from ssehub.log.urls import open_log
from ssehub.process_local import ProcessLocal
from ssehub.server.connection import Connection
from ssehub.server.dispatcher import Dispatcher, Hooks
from ssehub.server.settings import HubSettings
from ssehub.wsgi.response import check_headers
from ssehub.wsgi.streams import Streams


class HubCore(ProcessLocal):
    """The state of a hub. :class:`ssehub.Hub` adds the methods for clients and messages."""

    def __init__(
        self,
        log: Log | str | None = None,
        *,
        heartbeat: float = 15.0,
        retry: int = 2000,
        max_pending: int = 256,
        max_replay: int | None = None,
        max_connections: int | None = None,
        max_per_client: int | None = None,
        max_age: float | None = None,
        stall_timeout: float = 60.0,
        headers: Mapping[str, str] | None = None,
        detach: bool | None = None,
        refuse_with: Literal[200, 503] = 200,
    ) -> None:
        if refuse_with not in (200, 503):
            raise ValueError(f"refuse_with must be 200 or 503, not {refuse_with!r}")
        self._hooks = Hooks()
        self.on_connection: Hook[[Connection]] = self._hooks.on_connection
        self.on_disconnect: Hook[[Connection]] = self._hooks.on_disconnect
        self.on_gap: Hook[[Connection, Gap]] = self._hooks.on_gap
        if isinstance(log, str):
            log = open_log(log)
        if log is not None and not isinstance(log, Log):
            raise TypeError(f"log must be a Log or the URL of one, such as 'sqlite:hub.db', not {type(log).__name__}")
        self._log = MemoryLog() if log is None else log
        self._settings = HubSettings(
            heartbeat, retry, max_pending, max_replay, max_connections, max_per_client, max_age, stall_timeout, detach
        )
        self._headers = check_headers(headers)
        self._refuse_with = refuse_with
        #: The last one belongs to this process, the others to its parent processes. Those are kept, because
        #: freeing one would end its streams in this process, under locks that are never released here.
        self._processes: list[_Process] = []
        super().__init__()
        _hubs.add(self)
        weakref.finalize(self, _let_go, self._processes, self._log.close).atexit = False

    def _renew(self) -> None:
        closed = bool(self._processes) and not self._processes[-1].dispatcher.takes_messages
        dispatcher = Dispatcher(self._log, self._settings, self._hooks, closed)
        self._processes.append(_Process(dispatcher, Streams(dispatcher)))

    @property
    def _own(self) -> _Process:
        """The state of this process, which a forked process must not use."""
        self._begin()
        return self._processes[-1]

    def stats(self) -> dict[str, Any]:
        """Return statistics of this process.

        Current values:

        * ``connections``: open streams. Of these, ``taken_over`` are written by the hub's own thread, and ``detached``
          use no thread of the server.
        * ``clients`` and ``zones``: the number of different clients and zones that have connections.
        * ``behind``: connections with unread messages in the log; ``lag``: the largest number of unread messages of a
          single connection.
        * ``pending``: queued messages to single connections; ``unsent``: messages in the log's outbox.
        * ``failing``: the background tasks that fail and are retried, each with the reason: ``follower``, ``outbox``,
          ``presence``, ``watcher``; and ``log`` if the log could not be opened. Empty if everything works.

        Counters since the start of the process:

        * ``messages`` delivered by the log, and ``unreadable`` entries of other writers that were skipped.
        * streams ``opened`` and ``refused``, and streams that ended as ``hang_ups`` and as ``stalled``.
        * messages ``delivered`` and ``sent_bytes``, passed to the server or written to sockets; ``gaps`` reported.
        * ``not_taken``: the reasons why streams were not taken over from the server, each with a count.
        * ``delays``: for each write, the seconds between the time at which its oldest message was sent and the end of
          the write, by the clocks of both processes. ``counts`` has the number of writes up to each of ``bounds`` and
          the number beyond the last one; ``sum`` is the total in seconds. Messages that a client had missed before it
          connected are not counted.
        """
        return self._own.dispatcher.stats()

    @property
    def failing(self) -> dict[str, str]:
        """The background tasks that currently fail and are retried, by name, with the reason; see :meth:`stats`.

        The call is fast and makes no requests, so it is suitable for a health check.
        """
        return self._own.dispatcher.failing()

    @property
    def is_shared(self) -> bool:
        """Whether other processes share the log."""
        return self._log.shared

    @property
    def settings(self) -> HubSettings:
        """The settings of the hub: heartbeat, limits and the others, as given to the constructor."""
        return self._settings

    @property
    def closed(self) -> bool:
        """True after :meth:`close` or :meth:`end_streams`: the hub accepts no more streams."""
        return not self._own.dispatcher.takes_streams

    def end_streams(self, timeout: float = 1.0) -> None:
        """End all streams and accept no more. Messages can still be sent, and productions continue. Idempotent.

        Use it when a process is about to stop but still serves requests. Clients are asked to reconnect after a random
        delay, also those that connect later. If a stream has not ended after the timeout because its client accepts no
        data, its socket is shut down, provided that the server exposes the socket.

        :param timeout: seconds to wait for the streams.
        """
        self._own.streams.close(timeout)

    def close(self, timeout: float = 1.0) -> None:
        """End all streams as :meth:`end_streams` does, and accept no more streams and messages. Idempotent.

        Productions of this process end with the reason ``lost``.

        :param timeout: seconds to wait for the productions, the streams, and the messages in the log's outbox.
        """
        deadline = time.monotonic() + timeout
        own = self._own
        own.dispatcher.takes_messages = False
        own.dispatcher.productions.close(timeout)  # so that the readers' last chunk can have the end
        own.streams.close(max(0.0, deadline - time.monotonic()))
        self._log.close(max(0.0, deadline - time.monotonic()))


class _Process(NamedTuple):
    dispatcher: Dispatcher
    streams: Streams


def _let_go(processes: list[_Process], close_log: Callable[[], None]) -> None:
    """Ask the threads of a garbage-collected hub to end. The garbage collector calls this, so it takes no lock."""
    if processes:
        processes[-1].streams.abandon(close_log)


#: The hubs of this process.
_hubs: weakref.WeakSet[HubCore] = weakref.WeakSet()


def hubs() -> list[HubCore]:
    """Return the hubs of this process that accept streams."""
    return [hub for hub in list(_hubs) if not hub.closed]


def close_all(timeout: float = 1.0) -> None:
    """Close all hubs of this process; see :meth:`ssehub.Hub.close`. Thread-safe.

    :param timeout: seconds to wait for the streams of a hub.
    """
    for hub in list(_hubs):
        hub.close(timeout)


def end_all_streams(timeout: float = 1.0) -> None:
    """End the streams of all hubs of this process; see :meth:`ssehub.Hub.end_streams`. Thread-safe.

    It is called when a process with streams exits. Integrations with servers call it when the server is told to stop.

    :param timeout: seconds to wait for the streams of a hub.
    """
    for hub in list(_hubs):  # also hubs that are already ending: the caller may exit when this returns
        hub.end_streams(timeout)


def end_all_productions(timeout: float = 2.0) -> None:
    """End the productions of all hubs of this process as lost. It is called when the process exits.

    :param timeout: seconds to wait for the productions of a hub.
    """
    for hub in list(_hubs):
        hub._own.dispatcher.productions.close(timeout)
