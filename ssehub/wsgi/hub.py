"""Hub: what an application uses. It takes in requests for streams, and messages."""

from __future__ import annotations

import atexit
import functools
import logging
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, overload

from ssehub.exceptions import HubClosed, LogError, UnknownClient
from ssehub.hooks import Hook
from ssehub.log import ALL, All, Gap, Log, MemoryLog, Packet, Process, Receipt, Session
from ssehub.log.packet import OR_ALL, check_name, warn_of_type
from ssehub.log.position import NOWHERE
from ssehub.process_local import ProcessLocal
from ssehub.server.connection import Connection, as_message
from ssehub.server.dispatcher import Dispatcher, Hooks
from ssehub.server.settings import HubSettings, check_number
from ssehub.server.start_position import Since, StartPosition
from ssehub.wsgi import gunicorn_worker, poller, sockets
from ssehub.wsgi.asgi import find_receiver
from ssehub.wsgi.response import (
    Request,
    Response,
    Unfit,
    check_headers,
    environ_of,
    last_event_id,
    stream_response,
    unavailable,
)
from ssehub.wsgi.streams import NO_REQUEST, REFUSAL, Source, Streams, has_one_thread
from ssehub.wsgi.takeover import why_not
from ssehub.wsgi.warnings import is_test, note_sent, note_served, warn_of

logger: logging.Logger = logging.getLogger("ssehub")

#: Zones one connection may be in; each is a table entry, and a request may name them.
MAX_ZONES = 100
#: Partitions of a log that one connection may read. Its process has to follow all of them, and each id has a part for
#: each, which has to come back in a request header.
MAX_READ_PARTITIONS = 32


class Hub(ProcessLocal):
    """Send messages to the clients that are connected, and to those that will be back.

    Every public method may be called from any thread, and none waits for a client. A hub starts nothing when it is
    made; it may be made before a server forks, and each process then has its own. If nobody refers to a hub any more,
    its threads end after its last stream; :meth:`close` does not wait for that.

    :param log: where messages are kept; a :class:`~ssehub.MemoryLog` of its own by default.
    :param heartbeat: seconds of silence after which a client hears that the stream is alive. Below the 60 s after
        which nginx and others cut a silent stream.
    :param retry: milliseconds a client waits before it reconnects.
    :param max_pending: messages sent to one session alone that may wait for it. Others wait for nobody: they are in
        the log, from which every connection reads.
    :param max_replay: messages that a connection may have to catch up on; one that is further behind gets a gap
        instead. None: whatever the log holds.
    :param max_connections: maximum number of open streams. None: as many as the descriptors that the process may open
        allow, less an eighth for everything else. Where streams stay on the server's threads, set it below their
        number.
    :param max_per_client: maximum number of open streams of one client id. None: no limit.
    :param max_age: seconds after which a stream ends and its client comes back, less up to a tenth. None: never.
    :param stall_timeout: seconds after which a client that takes nothing of a write is cut, where the server shows its
        socket.
    :param detach: whether streams leave the server's threads. Where the server shows the client's socket, one thread of
        the hub writes to all streams, and the server's thread is only needed to begin one. None: the thread stays with
        its stream, but where the server has one thread for all requests it does not. True: it never stays. False: the
        server's threads write their streams themselves. If a stream cannot be taken over, because the server shows no
        socket or a middleware changes the body, its thread writes it, too; the log says so once.
    :param headers: response headers to add to every stream.
    :param refuse_with: the answer to a client that is one too many. 200: an event stream that tells it to come back
        later and ends, because a browser's EventSource gives up for good on anything else. 503: for clients that
        know what that means.
    :raises ValueError: if a number is out of its range or a header is not the application's to set.
    :raises TypeError: if an argument has the wrong type.

    :ivar on_connection: hook, called with the :class:`Connection` once it is registered, before its first bytes. It
        runs in the thread that serves the request.
    :ivar on_disconnect: hook, called with the :class:`Connection` once it is gone; its ``closed`` says why. It is the
        last hook of a connection.
    :ivar on_gap: hook, called with the :class:`Connection` and the :class:`~ssehub.Gap`. What it sends to the
        connection follows the gap and precedes what the log still holds.

    ``on_gap`` and ``on_disconnect`` run in the thread that serves the stream, or, if the stream has left its thread, in
    one of a few threads of the hub. The hooks of one connection never run at the same time, and the stream waits for
    them; other streams do not. A hook that takes longer than ten seconds in a thread of the hub is named in the log.
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

    # Clients

    def connect(
        self,
        request_or_environ: Request | dict[str, Any],
        *,
        zone: str | Sequence[str] = "default",
        client_id: str | None = None,
        metadata: Any = None,
        since: Since = None,
        max_age: float | None = None,
    ) -> Response:
        """Answer a request with an event stream.

        The client is registered when the server asks for the first bytes, in the thread that serves the request.
        Whether that thread then stays with the stream is what ``detach`` says. HEAD is answered with the headers alone.

        :param request_or_environ: a werkzeug or Flask request, or the WSGI environ.
        :param zone: the zone's name, or several.
        :param client_id: who this is; several streams may share it. None: an id of its own.
        :param metadata: what to note about the client; see :meth:`set_metadata`.
        :param since: where to start if the request brings no last event id: None for now, ``"oldest"``, a number
            for the last so many messages, or a cursor.
        :param max_age: seconds after which this stream ends, less up to a tenth, and its client comes back: for
            instance until the token expires that the client has shown. None, or more than the hub's: that of the hub.
        :returns: a werkzeug response, which is also a WSGI application.
        :raises ValueError: if a name, ``since`` or ``max_age`` is unfit. It is werkzeug's ``BadRequest``, too, because
            names often come from the request: werkzeug and Flask answer with a 400.
        :raises TypeError: if an argument has the wrong type.
        """
        own = self._own
        own.dispatcher.cluster.check_metadata(metadata)
        environ = environ_of(request_or_environ)
        warn_of(environ, self._log.shared)
        note_served()
        try:
            start = StartPosition(last_event_id(environ), since)
            zones = self._check_zones(zone)
            client_id = None if client_id is None else _check_name(client_id)
            check_number("max_age", max_age, optional=True)
        except ValueError as error:
            raise Unfit(str(error)) from None
        source = _source_of(environ, self._settings.detach)
        body = own.streams.body(zones, client_id, metadata, start, source, max_age)
        _end_streams_at_exit()
        if not source.detaches and "gunicorn.socket" in environ:
            _end_streams_with_worker(own.streams.limit(source))
        if self._refuse_with == 503 and own.dispatcher.is_full(client_id, own.streams.limit(source)):
            return unavailable(REFUSAL * self._settings.retry // 1000)
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
        own = self._own
        own.dispatcher.cluster.check_metadata(metadata)
        note_served()
        return own.streams.body(
            self._check_zones(zone),
            None if client_id is None else _check_name(client_id),
            metadata,
            StartPosition(last_event_id, since),
            NO_REQUEST,
        )

    def cursor(self, zone: str | Sequence[str] | All = ALL) -> str:
        """Return where the log stands now.

        Put it into a page as ``lastEventId`` of its stream's URL before you read what the page shows: then nothing
        falls between the page and the stream.

        If the log cannot be reached, the page is still made: the cursor is one that no log knows. The stream that
        begins there is told a gap, ``epoch`` or ``bad_id``, as soon as there is a stream; the page loads its data anew.

        :param zone: the zones of that stream. With a log of several partitions the cursor is the shorter for it.
        :raises ValueError: if a name is unfit.
        :raises TypeError: if the zone is neither a name nor several.
        """
        zones = zone if zone is ALL else self._check_zones(zone)
        own = self._own
        note_served()
        try:
            own.dispatcher.start()
            return str(self._log.cursor(zones))
        except LogError as error:
            logger.warning("a page's cursor will be told as a gap: %s", error)
            return NOWHERE

    def _check_zones(self, zone: str | Sequence[str]) -> tuple[str, ...]:
        if not isinstance(zone, Iterable) or isinstance(zone, bytes):  # ALL, for instance
            raise TypeError(f"zone must be a zone's name, or a list of names, not {zone!r}")
        zones = (zone,) if isinstance(zone, str) else tuple(zone)
        if not 0 < len(zones) <= MAX_ZONES:
            raise ValueError(f"a connection is in 1 to {MAX_ZONES} zones, not in {len(zones)}")
        zones = tuple(dict.fromkeys(check_name("zone", name) for name in zones))
        if (count := len(self._log.partitions(zones))) > MAX_READ_PARTITIONS:
            raise ValueError(f"these zones are in {count} partitions of the log; a stream reads {MAX_READ_PARTITIONS}")
        return zones

    # Messages

    def broadcast(
        self,
        message: Any,
        *,
        zone: str | All = ALL,
        exclude: Iterable[str] = (),
        event: str | None = None,
        id: str | None = None,
        default: Callable[[Any], Any] | None = None,
    ) -> Receipt:
        """Send to everyone, or to everyone in a zone.

        :param message: a text; any other value (a dict, a list, a number), which is sent as JSON; or a
            :class:`Message`.
        :param zone: the zone's name; :data:`ALL` for everyone.
        :param exclude: ids of sessions that do not get it.
        :param event: the event's type, ``"message"`` by default. A :class:`Message` has its own.
        :param id: the event's id; by default the log assigns one. A :class:`Message` has its own.
        :param default: makes JSON of what has no form in it, a ``datetime`` for instance; ``default=str`` writes its
            text. See :meth:`Message.from_json`.
        :raises TypeError: if the message is None, or JSON has no form for it.
        :raises ValueError: if it cannot be sent, or a name is unfit.
        :raises HubClosed: after :meth:`close`.
        :raises LogError: if the log did not accept it, or nobody knows whether it did; of a log's partitions, some may.
        """
        made = as_message(message, event, id, default)
        return self.send_message(Packet(made, zone, broadcast=True, exclude=exclude))  # type: ignore[arg-type]

    def send(
        self,
        client_id: str,
        message: Any,
        *,
        zone: str | All = ALL,
        exclude: Iterable[str] = (),
        require: bool = False,
        event: str | None = None,
        id: str | None = None,
        default: Callable[[Any], Any] | None = None,
    ) -> Receipt:
        """Send to every session of a client, or to those in a zone.

        A client that is not connected gets it from the log when it comes back with its last event id.

        :param exclude: ids of sessions that do not get it, the sender's own for instance.
        :param require: True to refuse a client that is not connected. The other parameters are those of
            :meth:`broadcast`.
        :raises UnknownClient: with ``require``, if the client is not connected, to any process that shares the log.
        :raises TypeError: if the client id is not a text, the message is None, or JSON has no form for it.
        :raises ValueError: if it cannot be sent, or a name is unfit.
        :raises HubClosed: after :meth:`close`.
        :raises LogError: if the log did not accept it.
        """
        _check_one(client_id)
        packet = Packet(as_message(message, event, id, default), zone, client_id, exclude=exclude)  # type: ignore[arg-type]
        if require and not self.is_present(client_id, zone):
            raise UnknownClient(f"client {client_id!r} is not connected")
        return self.send_message(packet)

    def send_message(self, packet: Packet) -> Receipt:
        """Send a packet; :meth:`broadcast` and :meth:`send` call this."""
        own = self._own
        if not own.dispatcher.takes_messages:
            raise HubClosed("the hub is closed")
        if not isinstance(packet, Packet):
            raise TypeError(f"a Packet is needed, not {type(packet).__name__}")
        warn_of_type(packet.message)
        if not self._log.shared and not own.dispatcher.is_started:
            note_sent()
            own.dispatcher.start()
        receipt = self._log.append(packet)
        own.streams.give_way()
        return receipt

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
        zone = _check_zone(zone)
        client_id = client_id if client_id is ALL else check_name("client_id", client_id, OR_ALL)
        dispatcher = self._own.dispatcher
        return dispatcher.cluster.sessions(zone, client_id) if everywhere else dispatcher.registry.find(zone, client_id)

    def processes(self) -> list[Process]:
        """Return this process, and the others that share the log and serve streams, with their numbers.

        :raises LogError: if they cannot be found out.
        """
        return self._own.dispatcher.cluster.processes()

    def is_present(self, client_id: str, zone: str | All = ALL) -> bool:
        """Return whether a client is connected, in any zone or in one, to any of the processes that share the log.

        :raises LogError: if it is not connected here, and it cannot be found out whether it is elsewhere.
        """
        return self._own.dispatcher.cluster.is_present(_check_name(client_id), _check_zone(zone))

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections, and how many each, at all processes that share the log.

        :raises LogError: if those of other processes cannot be found out.
        """
        return self._own.dispatcher.cluster.zones()

    def set_metadata(self, client_id: str, data: Any) -> None:
        """Replace what is noted about a client. All its sessions share it; with the last of them it goes.

        Sessions at other processes that share the log have it a moment later.

        :raises UnknownClient: if the client is not connected anywhere.
        :raises TypeError: if the log is shared and the data is not JSON.
        :raises LogError: if other processes could not be asked or told.
        """
        self._own.dispatcher.cluster.check_metadata(data)
        self._own.dispatcher.cluster.set_metadata(_check_name(client_id), data)

    def get_metadata(self, client_id: str) -> Any:
        """Return what is noted about a client, or None.

        :raises UnknownClient: if the client is not connected anywhere.
        :raises LogError: if it is not connected here, and it cannot be found out whether it is elsewhere.
        """
        return self._own.dispatcher.cluster.get_metadata(_check_name(client_id))

    def disconnect(self, client_id: str, *, zone: str | All = ALL, session_id: str | None = None) -> int:
        """End a client's streams, or only those in a zone, or only one session. Returns without waiting for them.

        A stream for which :meth:`connect` was called, and which has not begun, ends when it begins. A browser comes
        back by itself; to keep it away, refuse it where you call :meth:`connect`.

        :returns: how many there were, at all processes that share the log.
        :raises LogError: if the other processes could not be asked or told. The streams of this process have ended.
        """
        return self._own.dispatcher.cluster.disconnect(_check_name(client_id), _check_zone(zone), session_id)

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


def _source_of(environ: dict[str, Any], detach: bool | None) -> Source:
    number = sockets.find_socket(environ)
    if number is None and is_test(environ):
        return NO_REQUEST
    obstacle = why_not(environ, number, sockets.is_tls(environ))
    if obstacle is None and not poller.is_available():
        obstacle = "the system has no epoll"
    alone = has_one_thread(environ)
    detaches = obstacle is None and (alone if detach is None else detach)
    return Source(number, obstacle, detaches, alone, find_receiver(environ))


def _check_zone(zone: str | All) -> str | All:
    return zone if zone is ALL else check_name("zone", zone, OR_ALL)


def _check_one(client_id: object) -> None:
    if client_id is None or client_id is ALL:
        raise TypeError(f"client_id is {client_id!r}; to send to everyone, use hub.broadcast(message)")


def _check_name(client_id: str) -> str:
    return check_name("client_id", client_id)


#: The hubs of this process.
_hubs: weakref.WeakSet[Hub] = weakref.WeakSet()


def hubs() -> list[Hub]:
    """Return the hubs of this process that take streams."""
    return [hub for hub in list(_hubs) if not hub.closed]


def close_all(timeout: float = 1.0) -> None:
    """Close all hubs of this process; see :meth:`Hub.close`. Any thread may call it.

    :param timeout: seconds to wait for the streams of a hub.
    """
    for hub in list(_hubs):
        hub.close(timeout)


def end_all_streams(timeout: float = 1.0) -> None:
    """End the streams of all hubs of this process; see :meth:`Hub.end_streams`. Any thread may call it.

    A process that has streams does so when it exits. Integrations with servers do so when the server is told to stop.

    :param timeout: seconds to wait for the streams of a hub.
    """
    for hub in list(_hubs):  # also those that have begun to: the caller may let the process go when this returns
        hub.end_streams(timeout)


def _end_streams_with_worker(limit: int) -> None:
    """Have streams that stay on threads end when gunicorn's worker is told to stop."""
    worker = gunicorn_worker.find()
    if worker is not None:
        gunicorn_worker.watch(worker, end_all_streams)
        gunicorn_worker.check_threads(worker, limit)


@functools.cache
def _end_streams_at_exit() -> None:
    """Have clients be told to come back when the process exits, however it is stopped; once in a process."""
    atexit.register(end_all_streams)
