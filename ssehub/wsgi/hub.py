"""Hub: what an application uses. It takes in requests for streams, and messages."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ssehub.exceptions import HubClosed, LogError, UnknownClient
from ssehub.log import ALL, All, Packet, Receipt
from ssehub.log.packet import check_name, warn_of_type
from ssehub.log.position import NOWHERE
from ssehub.logger import logger
from ssehub.server.connection import as_message
from ssehub.server.settings import check_number
from ssehub.server.start_position import Since, StartPosition
from ssehub.wsgi import gunicorn_worker
from ssehub.wsgi.directory import Directory
from ssehub.wsgi.hub_core import end_all_streams
from ssehub.wsgi.response import (
    Request,
    Response,
    Unfit,
    environ_of,
    last_event_id,
    stream_response,
    unavailable,
)
from ssehub.wsgi.source import NO_REQUEST, source_of
from ssehub.wsgi.streams import REFUSAL
from ssehub.wsgi.warnings import note_sent, note_served, warn_of

#: Zones one connection may be in; each is a table entry, and a request may name them.
MAX_ZONES = 100
#: Partitions of a log that one connection may read. Its process has to follow all of them, and each id has a part for
#: each, which has to come back in a request header.
MAX_READ_PARTITIONS = 32


class Hub(Directory):
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
            client_id = None if client_id is None else check_name("client_id", client_id)
            check_number("max_age", max_age, optional=True)
        except ValueError as error:
            raise Unfit(str(error)) from None
        source = source_of(environ, self._settings.detach)
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
            None if client_id is None else check_name("client_id", client_id),
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


def _check_one(client_id: object) -> None:
    if client_id is None or client_id is ALL:
        raise TypeError(f"client_id is {client_id!r}; to send to everyone, use hub.broadcast(message)")


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
