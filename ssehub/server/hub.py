"""Hub: takes in connections and messages, and brings them together."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from ssehub.exceptions import HubClosed, UnknownClient
from ssehub.hooks import Hook
from ssehub.log import ALL, All, Entry, Gap, Log, MemoryLog, Packet, Receipt
from ssehub.log.packet import check_name
from ssehub.server import peer
from ssehub.server.connection import Connection, as_message
from ssehub.server.counters import Counters
from ssehub.server.pace import Pace
from ssehub.server.pages import Pages
from ssehub.server.parking import Parker, Parking
from ssehub.server.registry import Registry
from ssehub.server.relay import Relay
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
from ssehub.server.watcher import Watcher
from ssehub.wire import Message

#: Zones one connection may be in; each is a table entry, and a request may name them.
MAX_ZONES = 100
#: A hub that is full tells its clients to wait this many times ``retry`` (and up to twice that, spread).
_REFUSAL = 5


class Hub:
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
        self.on_connection: Hook[[Connection]] = Hook("on_connection")
        self.on_disconnect: Hook[[Connection]] = Hook("on_disconnect")
        self.on_gap: Hook[[Connection, Gap]] = Hook("on_gap")
        self._log = MemoryLog() if log is None else log
        self._pace = Pace(
            heartbeat, retry, max_pending, max_replay, max_connections, max_per_client, max_age, stall_timeout
        )
        self._headers = check_headers(headers)
        self._refuse_with = refuse_with
        self._closed = False
        self._renew()
        _hubs.add(self)

    def _renew(self) -> None:
        """Make everything that may not cross a fork: the child's locks may have been held in the parent."""
        self._lock = threading.Lock()
        self._started = False
        self._registry = Registry()
        self._pages = Pages(self._log)
        self._parking = Parking()
        self._relay = Relay()
        self._watcher = Watcher(self._pace)
        self._counters = Counters()

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
        :param metadata: what to note about the client; see :meth:`get_metadata`.
        :param since: where to start if the request brings no last event id: None for now, ``"oldest"``, a number
            for the last so many messages, or a cursor.
        :returns: a werkzeug response, which is also a WSGI application.
        :raises ValueError: if a name or ``since`` is unfit.
        :raises TypeError: if an argument has the wrong type.
        """
        environ = environ_of(request_or_environ)
        start = Start(last_event_id(environ), since)
        socket = peer.find_socket(environ)
        body = self._life(
            _check_zones(zone), None if client_id is None else _check_name(client_id), metadata, start, socket
        )
        if self._refuse_with == 503 and self._is_full():
            return unavailable(_REFUSAL * self._pace.retry // 1000)
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
        return self._life(
            _check_zones(zone),
            None if client_id is None else _check_name(client_id),
            metadata,
            Start(last_event_id, since),
            None,
        )

    def cursor(self) -> str:
        """Return where the log stands now.

        Put it into a page as ``lastEventId`` of its stream's URL before you read what the page shows: then nothing
        falls between the page and the stream.
        """
        self._start()
        return str(self._log.tail())

    # Messages

    def broadcast(self, message: Message | str, *, zone: str | All = ALL, exclude: Iterable[str] = ()) -> Receipt:
        """Send to everyone, or to everyone in a zone.

        :param message: a message, or a text that becomes one of the default type.
        :param exclude: ids of sessions that do not get it.
        :raises HubClosed: after :meth:`close`.
        :raises LogError: if the log did not accept it; nobody got it then.
        """
        return self.send_message(Packet(as_message(message), zone, broadcast=True, exclude=exclude))  # type: ignore[arg-type]

    def send(self, client_id: str, message: Message | str, *, zone: str | All = ALL, require: bool = False) -> Receipt:
        """Send to every session of a client, or to those in a zone.

        A client that is not connected gets it from the log when it comes back with its last event id.

        :param require: True to refuse that.
        :raises UnknownClient: with ``require``, if the client is not connected.
        :raises TypeError: if the client id is None.
        :raises HubClosed: after :meth:`close`.
        :raises LogError: if the log did not accept it.
        """
        packet = Packet(as_message(message), zone, _check_name(client_id))
        if require and not self._registry.match(packet):
            raise UnknownClient(f"client {client_id!r} is not connected")
        return self.send_message(packet)

    def send_message(self, packet: Packet) -> Receipt:
        """Send a packet; :meth:`broadcast` and :meth:`send` call this."""
        if self._closed:
            raise HubClosed("the hub is closed")
        if not isinstance(packet, Packet):
            raise TypeError(f"a Packet is needed, not {type(packet).__name__}")
        self._start()
        return self._log.append(packet)

    # Who is there

    def connections(self, zone: str | All = ALL, client_id: str | All = ALL) -> list[Connection]:
        """Return the open connections of this process, all or those of a zone, a client or both."""
        return self._registry.find(_check_zone(zone), client_id if client_id is ALL else _check_name(client_id))

    def is_present(self, client_id: str, zone: str | All = ALL) -> bool:
        """Tell whether a client is connected, anywhere or in a zone."""
        return bool(self._registry.find(_check_zone(zone), _check_name(client_id)))

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections, and how many each."""
        return self._registry.zones()

    def set_metadata(self, client_id: str, data: Any) -> None:
        """Replace what is noted about a client. All its sessions share it; with the last of them it goes.

        :raises UnknownClient: if the client is not connected.
        """
        self._registry.set_metadata(client_id, data)

    def get_metadata(self, client_id: str) -> Any:
        """Return what is noted about a client, or None.

        :raises UnknownClient: if the client is not connected.
        """
        return self._registry.get_metadata(client_id)

    def disconnect(self, client_id: str, *, zone: str | All = ALL, session_id: str | None = None) -> int:
        """End a client's streams, or only those in a zone, or only one session. Returns without waiting for them.

        A browser comes back by itself; to keep it away, refuse it where you call :meth:`connect`.

        :returns: how many were ended.
        """
        found = self._registry.find(_check_zone(zone), _check_name(client_id))
        return sum(one.close() for one in found if session_id in (None, one.id))

    def stats(self) -> dict[str, int]:
        """Return what is there in this process now, and counters since its start.

        Now: ``connections``, ``clients``, ``zones``, connections ``behind`` the log, and the ``lag`` of the one that is
        furthest behind, in entries. Since the start: ``messages`` delivered by the log, streams ``opened`` and
        ``refused``, messages ``delivered`` and ``sent_bytes`` handed to the server, ``gaps`` told, streams ended by
        ``hang_ups`` and as ``stalled``.
        """
        there = {"clients": self._registry.clients(), "zones": len(self._registry.zones())}
        return {**self._counters.read(self._registry.find()), **there}

    @property
    def closed(self) -> bool:
        """True once :meth:`close` was called."""
        return self._closed

    def close(self, timeout: float = 1.0) -> None:
        """End all streams and take no more. Idempotent.

        Clients are told to come back, spread over a while. A stream that has not ended after the timeout, because its
        reader has stalled, is cut where the server shows its socket. A client that comes meanwhile is told likewise.

        :param timeout: seconds to wait for the streams.
        """
        with self._lock:
            self._closed = True
        connections = self._registry.find()
        for connection in connections:
            connection.close("shutdown")
        deadline = time.monotonic() + timeout
        own = threading.get_ident()
        late = [one for one in connections if one.thread != own and not one.wait(max(0.0, deadline - time.monotonic()))]
        self._watcher.cut(late)
        self._watcher.close()
        self._log.close()

    # The life of a connection

    def _life(
        self, zones: tuple[str, ...], client_id: str | None, metadata: Any, start: Start, socket: int | None
    ) -> Iterator[bytes]:
        """Be the body of a response: nothing happens before the server asks for the first bytes."""
        connection = None if self._closed else self._admit(zones, client_id, metadata, start)
        if connection is None:
            self._counters.count("refused")
            yield self._pace.farewell(_REFUSAL)
            return
        reason = "error"
        try:
            self._watcher.watch(connection, socket)
            self.on_connection.fire(connection)
            yield from connection
        except GeneratorExit:
            reason = "hang-up"
            raise
        finally:
            self._watcher.unwatch(connection)
            self._dismiss(connection, reason)

    def _admit(self, zones: tuple[str, ...], client_id: str | None, metadata: Any, start: Start) -> Connection | None:
        self._start()
        connection = Connection(
            self._log, self._pages, self._parking, self._relay, self._pace, zones, client_id, start, self.on_gap.fire
        )
        connection.member.metadata = metadata
        if not self._registry.add(connection, self._pace.max_connections, self._pace.max_per_client):
            return None
        self._counters.count("opened")
        if self._closed:  # close() may have looked round just before
            connection.close("shutdown")
        return connection

    def _dismiss(self, connection: Connection, reason: str) -> None:
        connection.close(reason)
        self._registry.remove(connection)
        self._counters.take_over(connection)
        self.on_disconnect.fire(connection)
        connection.end()

    def _is_full(self) -> bool:
        limit = self._pace.max_connections
        return self._closed or (limit is not None and len(self._registry) >= limit)

    def _start(self) -> None:
        with self._lock:
            if not self._started:
                self._log.start(self._deliver)
                self._started = True

    def _deliver(self, entry: Entry) -> int:
        """Wake whom an entry is for. The log calls this in its order, and waits for it."""
        packet = entry.packet
        woken: Sequence[Parker]
        if packet.client_id is None and not packet.exclude:
            count = self._registry.count(packet.zone)
            woken = self._parking.wake_zone(entry, packet.zone)
        else:
            matched = self._registry.match(packet)
            count = len(matched)
            woken = self._parking.wake_these(entry, matched)
        self._relay.enlist(woken)
        self._counters.count("messages")
        return count


def _check_zones(zone: str | Sequence[str]) -> tuple[str, ...]:
    zones = (zone,) if isinstance(zone, str) else tuple(zone)
    if not 0 < len(zones) <= MAX_ZONES:
        raise ValueError(f"a connection is in 1 to {MAX_ZONES} zones, not in {len(zones)}")
    return tuple(dict.fromkeys(check_name("zone", name) for name in zones))


def _check_zone(zone: str | All) -> str | All:
    return zone if zone is ALL else check_name("zone", zone)


def _check_name(client_id: str) -> str:
    return check_name("client_id", client_id)


#: The hubs of this process, to make them anew in a child: gunicorn --preload, multiprocessing.
_hubs: weakref.WeakSet[Hub] = weakref.WeakSet()


def _renew_all() -> None:
    for hub in list(_hubs):
        hub._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
