"""Hub: takes in connections and messages, and brings them together."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, overload

from ssehub.exceptions import HubClosed, UnknownClient
from ssehub.forks import Forked
from ssehub.log import ALL, All, Log, MemoryLog, Packet, Process, Receipt, Session
from ssehub.log.packet import check_name
from ssehub.server import peer
from ssehub.server.advice import warn_of
from ssehub.server.connection import Connection, as_message
from ssehub.server.pace import Pace
from ssehub.server.response import (
    Request,
    Response,
    check_headers,
    environ_of,
    last_event_id,
    stream_response,
    unavailable,
)
from ssehub.server.start import Since, Start
from ssehub.server.switchboard import REFUSAL, Hooks, Switchboard
from ssehub.wire import Message

#: Zones one connection may be in; each is a table entry, and a request may name them.
MAX_ZONES = 100


class Hub(Forked):
    """Send messages to the clients that are connected, and to those that will be back.

    Every public method may be called from any thread, and none waits for a client. A hub starts nothing when it is
    made; it may be made before a server forks, and each process then has its own.

    :param log: where messages are kept; a :class:`~ssehub.MemoryLog` of its own by default.
    :param heartbeat: seconds of silence after which a client hears that the stream is alive. Below the 60 s after
        which nginx and others cut a silent stream.
    :param retry: milliseconds a client waits before it reconnects.
    :param max_pending: messages sent to one session alone that may wait for it. Others wait for nobody: they are in
        the log, from which every connection reads.
    :param max_replay: entries a connection may have to catch up on; one that is further behind gets a gap instead.
        None: whatever the log holds.
    :param max_connections: open streams at the most; keep it below the server's threads. None: no limit.
    :param max_per_client: open streams of one client id at the most. None: no limit.
    :param max_age: seconds after which a stream ends and its client comes back, less up to a tenth. None: never.
    :param stall_timeout: seconds a write may take before the connection is cut, where the server shows its socket.
    :param headers: response headers to add to every stream.
    :param refuse_with: the answer to a client that is one too many. 200: an event stream that tells it to come back
        later and ends, because a browser's EventSource gives up for good on anything else. 503: for clients that
        know what that means.
    :raises ValueError: if a number is out of its range or a header is not the application's to set.
    :raises TypeError: if an argument has the wrong type.

    :ivar on_connection: hook, called with the :class:`Connection` once it is registered, in its thread.
    :ivar on_disconnect: hook, called with the :class:`Connection` once it is gone, in its thread; its ``closed``
        says why.
    :ivar on_gap: hook, called with the :class:`Connection` and the :class:`~ssehub.Gap` in the connection's thread;
        what it sends to the connection follows the gap and precedes what the log still holds.
    """

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
        refuse_with: Literal[200, 503] = 200,
    ) -> None:
        if refuse_with not in (200, 503):
            raise ValueError(f"refuse_with must be 200 or 503, not {refuse_with!r}")
        self._hooks = Hooks()
        self.on_connection = self._hooks.on_connection
        self.on_disconnect = self._hooks.on_disconnect
        self.on_gap = self._hooks.on_gap
        if log is not None and not isinstance(log, Log):
            raise TypeError(f"log must be a Log, RedisLog({log!r}) for instance, not {type(log).__name__}")
        self._log = MemoryLog() if log is None else log
        self._pace = Pace(
            heartbeat, retry, max_pending, max_replay, max_connections, max_per_client, max_age, stall_timeout
        )
        self._headers = check_headers(headers)
        self._refuse_with = refuse_with
        #: The last is this process's, the others are its parents'. They are kept: to let go of one would end its
        #: streams here, under locks that nobody will release.
        self._boards: list[Switchboard] = []
        super().__init__()
        _hubs.add(self)

    def _renew(self) -> None:
        closed = bool(self._boards) and self._boards[-1].closed
        self._boards.append(Switchboard(self._log, self._pace, self._hooks, closed))

    @property
    def _board(self) -> Switchboard:
        """Everything that may not cross a fork."""
        self._begin()
        return self._boards[-1]

    # Clients

    def connect(
        self,
        request_or_environ: Request | dict[str, Any],
        *,
        zone: str | Sequence[str] = "default",
        client_id: str | None = None,
        metadata: Any = None,
        since: Since = None,
    ) -> Response:
        """Answer a request with an event stream.

        The client is registered when the server asks for the first bytes, in the thread that serves the request, and
        that thread is taken until the stream ends. HEAD is answered with the headers alone.

        :param request_or_environ: a werkzeug or Flask request, or the WSGI environ.
        :param zone: the zone's name, or several.
        :param client_id: who this is; several streams may share it. None: an id of its own.
        :param metadata: what to note about the client; see :meth:`set_metadata`.
        :param since: where to start if the request brings no last event id: None for now, ``"oldest"``, a number
            for the last so many messages, or a cursor.
        :returns: a werkzeug response, which is also a WSGI application.
        :raises ValueError: if a name or ``since`` is unfit.
        :raises TypeError: if an argument has the wrong type.
        """
        self._board.roster.check_metadata(metadata)
        environ = environ_of(request_or_environ)
        warn_of(environ, self._log.shared)
        start = Start(last_event_id(environ), since)
        socket = peer.find_socket(environ)
        client_id = None if client_id is None else _check_name(client_id)
        body = self._board.body(_check_zones(zone), client_id, metadata, start, socket)
        if self._refuse_with == 503 and self._board.is_full(client_id):
            return unavailable(REFUSAL * self._pace.retry // 1000)
        return stream_response(body, self._headers)

    def stream(
        self,
        *,
        zone: str | Sequence[str] = "default",
        client_id: str | None = None,
        metadata: Any = None,
        last_event_id: str = "",
        since: Since = None,
    ) -> Iterator[bytes]:
        """Make the same stream without HTTP: iterate it in one thread, and close it to leave.

        :param last_event_id: the id to go on from; the other parameters are those of :meth:`connect`.
        """
        self._board.roster.check_metadata(metadata)
        return self._board.body(
            _check_zones(zone),
            None if client_id is None else _check_name(client_id),
            metadata,
            Start(last_event_id, since),
            None,
        )

    def cursor(self, zone: str | Sequence[str] | All = ALL) -> str:
        """Return where the log stands now.

        Put it into a page as ``lastEventId`` of its stream's URL before you read what the page shows: then nothing
        falls between the page and the stream.

        :param zone: the zones of that stream. With a log of several partitions the cursor is the shorter for it.
        :raises LogError: if the log cannot be reached.
        """
        self._board.start()
        return str(self._log.cursor(zone if zone is ALL else _check_zones(zone)))

    # Messages

    def broadcast(self, message: Message | str, *, zone: str | All = ALL, exclude: Iterable[str] = ()) -> Receipt:
        """Send to everyone, or to everyone in a zone.

        :param message: a message, or a text that becomes one of the default type.
        :param exclude: ids of sessions that do not get it.
        :raises HubClosed: after :meth:`close`.
        :raises LogError: if the log did not accept it, or nobody knows whether it did; of a log's partitions, some may.
        """
        return self.send_message(Packet(as_message(message), zone, broadcast=True, exclude=exclude))  # type: ignore[arg-type]

    def send(
        self,
        client_id: str,
        message: Message | str,
        *,
        zone: str | All = ALL,
        exclude: Iterable[str] = (),
        require: bool = False,
    ) -> Receipt:
        """Send to every session of a client, or to those in a zone.

        A client that is not connected gets it from the log when it comes back with its last event id.

        :param exclude: ids of sessions that do not get it, the sender's own for instance.
        :param require: True to refuse a client that is not connected.
        :raises UnknownClient: with ``require``, if the client is not connected, to any process that shares the log.
        :raises TypeError: if the client id is None.
        :raises HubClosed: after :meth:`close`.
        :raises LogError: if the log did not accept it.
        """
        packet = Packet(as_message(message), zone, _check_name(client_id), exclude=exclude)  # type: ignore[arg-type]
        if require and not self.is_present(client_id, zone):
            raise UnknownClient(f"client {client_id!r} is not connected")
        return self.send_message(packet)

    def send_message(self, packet: Packet) -> Receipt:
        """Send a packet; :meth:`broadcast` and :meth:`send` call this."""
        if self._board.closed:
            raise HubClosed("the hub is closed")
        if not isinstance(packet, Packet):
            raise TypeError(f"a Packet is needed, not {type(packet).__name__}")
        if not self._log.shared:
            self._board.start()
        return self._log.append(packet)

    # Who is there

    @overload
    def connections(
        self, zone: str | All = ALL, client_id: str | All = ALL, *, everywhere: Literal[False] = False
    ) -> list[Connection]: ...

    @overload
    def connections(
        self, zone: str | All = ALL, client_id: str | All = ALL, *, everywhere: Literal[True]
    ) -> list[Session]: ...

    def connections(
        self, zone: str | All = ALL, client_id: str | All = ALL, *, everywhere: bool = False
    ) -> list[Connection] | list[Session]:
        """Return the open connections of this process, all or those of a zone, a client or both.

        :param everywhere: True for those of all processes that share the log, as :class:`~ssehub.Session` values.
        :raises LogError: if the other processes' cannot be found out.
        """
        zone, client_id = _check_zone(zone), client_id if client_id is ALL else _check_name(client_id)
        return (
            self._board.roster.sessions(zone, client_id) if everywhere else self._board.registry.find(zone, client_id)
        )

    def processes(self) -> list[Process]:
        """Return this process, and the others that share the log and serve streams, with their numbers.

        :raises LogError: if they cannot be found out.
        """
        return self._board.roster.processes()

    def is_present(self, client_id: str, zone: str | All = ALL) -> bool:
        """Tell whether a client is connected, in any zone or in one, to any of the processes that share the log.

        :raises LogError: if it is not connected here, and it cannot be found out whether it is elsewhere.
        """
        return self._board.roster.is_present(_check_name(client_id), _check_zone(zone))

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections, and how many each, at all processes that share the log.

        :raises LogError: if those of other processes cannot be found out.
        """
        return self._board.roster.zones()

    def set_metadata(self, client_id: str, data: Any) -> None:
        """Replace what is noted about a client. All its sessions share it; with the last of them it goes.

        Sessions at other processes that share the log have it a moment later.

        :raises UnknownClient: if the client is not connected anywhere.
        :raises TypeError: if the log is shared and the data is not JSON.
        :raises LogError: if other processes could not be asked or told.
        """
        self._board.roster.check_metadata(data)
        self._board.roster.set_metadata(_check_name(client_id), data)

    def get_metadata(self, client_id: str) -> Any:
        """Return what is noted about a client, or None.

        :raises UnknownClient: if the client is not connected anywhere.
        :raises LogError: if it is not connected here, and it cannot be found out whether it is elsewhere.
        """
        return self._board.roster.get_metadata(_check_name(client_id))

    def disconnect(self, client_id: str, *, zone: str | All = ALL, session_id: str | None = None) -> int:
        """End a client's streams, or only those in a zone, or only one session. Returns without waiting for them.

        A browser comes back by itself; to keep it away, refuse it where you call :meth:`connect`.

        :returns: how many there were, at all processes that share the log.
        :raises LogError: if the other processes could not be asked or told.
        """
        return self._board.roster.disconnect(_check_name(client_id), _check_zone(zone), session_id)

    def stats(self) -> dict[str, Any]:
        """Return what is there in this process now, and counters since its start.

        Now: ``connections``, ``clients``, ``zones``, connections ``behind`` the log, and the ``lag`` of the one that is
        furthest behind, in entries; messages to single sessions that are ``pending``, and messages ``unsent`` in the
        log's outbox. Since the start: ``messages`` delivered by the log, streams ``opened`` and ``refused``, messages
        ``delivered`` and ``sent_bytes`` handed to the server, ``gaps`` told, streams ended by ``hang_ups`` and as
        ``stalled``.

        And ``delays``: for each write, how many seconds before its end its oldest message was sent, by the clocks of
        both processes. ``counts`` are those up to each of ``bounds`` and beyond the last, ``sum`` is of all. What a
        client had missed while it was away is not counted.
        """
        return self._board.stats()

    @property
    def is_shared(self) -> bool:
        """Whether other processes share the log."""
        return self._log.shared

    @property
    def pace(self) -> Pace:
        """How its connections behave: heartbeat, limits and the rest, as they were given."""
        return self._pace

    @property
    def closed(self) -> bool:
        """True once :meth:`close` was called."""
        return self._board.closed

    def close(self, timeout: float = 1.0) -> None:
        """End all streams and take no more. Idempotent.

        Clients are told to come back, spread over a while. A stream that has not ended after the timeout, because its
        reader has stalled, is cut where the server shows its socket. A client that comes meanwhile is told likewise.

        :param timeout: seconds to wait for the streams.
        """
        self._board.close(timeout)


def _check_zones(zone: str | Sequence[str]) -> tuple[str, ...]:
    zones = (zone,) if isinstance(zone, str) else tuple(zone)
    if not 0 < len(zones) <= MAX_ZONES:
        raise ValueError(f"a connection is in 1 to {MAX_ZONES} zones, not in {len(zones)}")
    return tuple(dict.fromkeys(check_name("zone", name) for name in zones))


def _check_zone(zone: str | All) -> str | All:
    return zone if zone is ALL else check_name("zone", zone)


def _check_name(client_id: str) -> str:
    return check_name("client_id", client_id)


#: The hubs of this process.
_hubs: weakref.WeakSet[Hub] = weakref.WeakSet()


def hubs() -> list[Hub]:
    """Return the hubs of this process that are not closed."""
    return [hub for hub in list(_hubs) if not hub.closed]


def close_all(timeout: float = 1.0) -> None:
    """Close all hubs of this process: their streams end in order, and their clients are told to come back, spread out.

    For whoever is told that the process is to stop; see :mod:`ssehub.integrations`. Any thread may call it.

    :param timeout: seconds to wait for the streams of a hub.
    """
    for hub in hubs():
        hub.close(timeout)
