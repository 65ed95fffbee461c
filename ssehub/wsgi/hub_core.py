"""HubCore: what a hub is made of in each process, its numbers, and its end. And all hubs of a process."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from ssehub.hooks import Hook
from ssehub.log import Gap, Log, MemoryLog
from ssehub.process_local import ProcessLocal
from ssehub.server.connection import Connection
from ssehub.server.dispatcher import Dispatcher, Hooks
from ssehub.server.settings import HubSettings
from ssehub.wsgi.response import check_headers
from ssehub.wsgi.streams import Streams


class HubCore(ProcessLocal):
    """The parts of a hub, and its state. :class:`ssehub.Hub` is this with its methods for clients and messages."""

    def __init__(
        self,
        log: Log | None = None,
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
        if log is not None and not isinstance(log, Log):
            # Its value is not shown: it may be an address with a password.
            raise TypeError(f"log must be a Log, RedisLog(address) for instance, not {type(log).__name__}")
        self._log = MemoryLog() if log is None else log
        self._settings = HubSettings(
            heartbeat, retry, max_pending, max_replay, max_connections, max_per_client, max_age, stall_timeout, detach
        )
        self._headers = check_headers(headers)
        self._refuse_with = refuse_with
        #: The last is this process's, the others are its parents'. They are kept: to let go of one would end its
        #: streams here, under locks that will never be released.
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
        """Everything that must not cross a fork."""
        self._begin()
        return self._processes[-1]

    def stats(self) -> dict[str, Any]:
        """Return numbers of this process.

        What is there now:

        * ``connections``: open streams. Of these, ``taken_over`` are written by the hub's own thread, and ``detached``
          hold no thread of the server.
        * ``clients`` and ``zones``: different ones that have connections.
        * ``behind``: connections that have something of the log to take yet; ``lag``: the most messages that one of
          them has to take.
        * ``pending``: messages to single sessions that wait; ``unsent``: messages in the log's outbox.
        * ``failing``: what fails in the background and is tried again, each with the reason: ``follower``, ``outbox``,
          ``presence``, ``watcher``. Empty if everything works.

        Counters since the start of the process:

        * ``messages`` delivered by the log, and ``unreadable`` entries in it, which others have written.
        * streams ``opened`` and ``refused``, and those that ended as ``hang_ups`` and ``stalled``.
        * messages ``delivered`` and ``sent_bytes``, handed to the server or written to sockets; ``gaps`` reported.
        * ``not_taken``: why streams were not taken over from the server, and how many each.
        * ``delays``: for each write, the seconds from when its oldest message was sent until the end of the write, by
          the clocks of both processes. ``counts`` are the writes up to each of ``bounds`` and beyond the last, ``sum``
          is of all. What a client had missed while it was away is not counted.
        """
        return self._own.dispatcher.stats()

    @property
    def failing(self) -> dict[str, str]:
        """What fails in the background now and is tried again, by its name, and why; see :meth:`stats`.

        It is quick, and asks nobody: use it for a health check.
        """
        return self._own.dispatcher.failing()

    @property
    def is_shared(self) -> bool:
        """Whether other processes share the log."""
        return self._log.shared

    @property
    def settings(self) -> HubSettings:
        """How its connections behave: heartbeat, limits and the rest, as they were given."""
        return self._settings

    @property
    def closed(self) -> bool:
        """True once :meth:`close` or :meth:`end_streams` was called: the hub takes no more streams."""
        return not self._own.dispatcher.takes_streams

    def end_streams(self, timeout: float = 1.0) -> None:
        """End all streams and take no more; messages are still sent. Idempotent.

        It is for a process that is about to stop while requests are still served. Clients are told to come back,
        spread over a while. A stream that has not ended after the timeout, because its reader has stalled, is cut where
        the server shows its socket. A client that comes meanwhile is told to come back, too.

        :param timeout: seconds to wait for the streams.
        """
        self._own.streams.close(timeout)

    def close(self, timeout: float = 1.0) -> None:
        """End all streams as :meth:`end_streams` does, and take neither streams nor messages any more. Idempotent.

        :param timeout: seconds to wait for the streams, and then for messages that wait in the log's outbox.
        """
        deadline = time.monotonic() + timeout
        own = self._own
        own.dispatcher.takes_messages = False
        own.streams.close(timeout)
        self._log.close(max(0.0, deadline - time.monotonic()))


class _Process(NamedTuple):
    dispatcher: Dispatcher
    streams: Streams


def _let_go(processes: list[_Process], close_log: Callable[[], None]) -> None:
    """Have the threads of a hub that was collected end. The garbage collector calls this: it takes no lock."""
    if processes:
        processes[-1].streams.abandon(close_log)


#: The hubs of this process.
_hubs: weakref.WeakSet[HubCore] = weakref.WeakSet()


def hubs() -> list[HubCore]:
    """Return the hubs of this process that take streams."""
    return [hub for hub in list(_hubs) if not hub.closed]


def close_all(timeout: float = 1.0) -> None:
    """Close all hubs of this process; see :meth:`ssehub.Hub.close`. Any thread may call it.

    :param timeout: seconds to wait for the streams of a hub.
    """
    for hub in list(_hubs):
        hub.close(timeout)


def end_all_streams(timeout: float = 1.0) -> None:
    """End the streams of all hubs of this process; see :meth:`ssehub.Hub.end_streams`. Any thread may call it.

    A process that has streams does so when it exits. Integrations with servers do so when the server is told to stop.

    :param timeout: seconds to wait for the streams of a hub.
    """
    for hub in list(_hubs):  # also those that have begun to: the caller may let the process go when this returns
        hub.end_streams(timeout)
