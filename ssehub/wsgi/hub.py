"""Hub: the class that an application uses. It answers requests with event streams, and sends messages."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ssehub.exceptions import LogError
from ssehub.log import ALL, All
from ssehub.log.packet import check_name
from ssehub.log.position import NOWHERE, is_end
from ssehub.logger import logger
from ssehub.server.history_page import HistoryPage, read_history
from ssehub.server.settings import check_number
from ssehub.server.start_position import Since, StartPosition
from ssehub.wsgi import gunicorn_worker
from ssehub.wsgi.capacity import REFUSAL
from ssehub.wsgi.hub_core import end_all_streams
from ssehub.wsgi.producer import Producer
from ssehub.wsgi.response import (
    Request,
    Response,
    Unfit,
    environ_of,
    last_event_id,
    no_more_events,
    stream_response,
    unavailable,
)
from ssehub.wsgi.source import NO_REQUEST, source_of
from ssehub.wsgi.warnings import note_served, warn_of, warn_of_hidden_worker

#: Maximum number of zones of one connection. Zone names may come from a request, and each takes memory in the registry.
MAX_ZONES = 100
#: Maximum number of a log's partitions that one connection may read. The process has to follow each of them, and each
#: adds a part to the event ids, which have to fit into a request header.
MAX_READ_PARTITIONS = 32


class Hub(Producer):
    """Sends messages to the clients that are connected, and to clients that reconnect later.

    All public methods are thread-safe, and none of them waits for a client. A new hub starts no threads, so you can
    make it before a server forks; each process then has its own state. If a hub is garbage collected, its threads end
    after its last stream. :meth:`close` ends them at once.

    :param log: where messages are kept: a log, or its URL, such as ``"sqlite:hub.db"``; see
        :func:`~ssehub.log.urls.open_log`. The default is a new :class:`~ssehub.MemoryLog`.
    :param heartbeat: seconds of silence after which the client is sent a comment, which shows that the stream is alive.
        It has to be less than the time after which a proxy closes a silent connection (nginx: 60 s).
    :param retry: milliseconds that a client waits before it reconnects.
    :param max_pending: maximum number of queued :meth:`Connection.send` messages of one connection. All other messages
        are read from the log and never queued.
    :param max_replay: maximum number of messages that a connection catches up on. A connection that is further behind
        gets a gap instead. None: everything that the log still has.
    :param max_connections: maximum number of open streams. None: as many as the process's limit of open descriptors
        allows, with an eighth of them reserved for other uses. If streams stay on the server's threads, set it below
        the number of these threads.
    :param max_per_client: maximum number of open streams of one client id. None: no limit.
    :param max_age: seconds after which a stream ends and its client reconnects. A random part of up to a tenth is
        subtracted. None: no limit.
    :param stall_timeout: seconds after which a stream is closed if its client accepts no data. This needs a server that
        exposes the client's socket.
    :param detach: whether streams release the server's threads. If the server exposes the client's socket, one thread
        of the hub writes to all streams, and a server thread is only needed to start a stream. None: the server thread
        is released only if the server has a single thread for all requests. True: it is always released. False: the
        server's threads write their streams themselves. A stream that cannot be taken over (the server exposes no
        socket, or a middleware changes the body) is also written by its server thread; this is logged once.
    :param headers: response headers to add to every stream.
    :param refuse_with: the status of the response when a limit is reached. 200: an event stream that ends at once and
        asks the client to reconnect later; with any other status a browser's EventSource stops for good. 503: for
        clients that retry after a 503.
    :raises ValueError: if a number is out of range, or if an application may not set one of the headers.
    :raises TypeError: if an argument has the wrong type.
    :ivar on_connection: hook, called with the :class:`Connection` after it is registered and before its first bytes are
        sent. It runs in the thread that serves the request.
    :ivar on_disconnect: hook, called with the :class:`Connection` after it has ended; ``closed`` is the reason. It is
        the last hook of a connection.
    :ivar on_gap: hook, called with the :class:`Connection` and the :class:`~ssehub.Gap`. Messages that it sends to the
        connection arrive after the gap and before the messages that the log still has.

    ``on_gap`` and ``on_disconnect`` run in the thread that serves the stream. If the stream has released that thread,
    they run in one of a few threads of the hub. The hooks of one connection never run at the same time. A stream waits
    for its own hooks; other streams do not. If a hook takes longer than ten seconds in a thread of the hub, this is
    logged.
    """

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
        """Return an event stream as the response to a request.

        The client is registered when the server asks for the first bytes, in the thread that serves the request. The
        parameter ``detach`` of the hub decides whether that thread stays with the stream. A HEAD request is answered
        with the headers alone.

        :param request_or_environ: a werkzeug or Flask request, or the WSGI environ.
        :param zone: the name of a zone, or several names.
        :param client_id: the id of the client. Several streams may share it. None: a new, random id.
        :param metadata: any data about the client; see :meth:`set_metadata`.
        :param since: where to start if the request has no last event id: None for now, ``"oldest"``, a number *n* for
            the last *n* messages, or a cursor.
        :param max_age: seconds after which this stream ends and its client reconnects, for example the remaining
            lifetime of the client's token. A random part of up to a tenth is subtracted. None, or a value greater than
            the hub's: the hub's ``max_age``.
        :returns: a werkzeug response, which is also a WSGI application. If the zone is that of a production, and the
            client has its end, it is a 204, after which clients do not reconnect.
        :raises ValueError: if a name, ``since`` or ``max_age`` is invalid. The error is also werkzeug's ``BadRequest``,
            because names often come from the request: werkzeug and Flask answer it with a 400.
        :raises TypeError: if an argument has the wrong type.
        """
        own = self._own
        own.dispatcher.cluster.check_metadata(metadata)
        environ = environ_of(request_or_environ)
        warn_of(environ, self._log.shared)
        note_served()
        try:
            event_id = last_event_id(environ)
            start = StartPosition(event_id, since)
            zones = self._check_zones(zone)
            client_id = None if client_id is None else check_name("client_id", client_id)
            check_number("max_age", max_age, optional=True)
        except ValueError as error:
            raise Unfit(str(error)) from None
        if len(zones) == 1 and is_end(event_id):
            return no_more_events()
        source = source_of(environ, self._settings.detach)
        body = own.streams.body(zones, client_id, metadata, start, source, max_age)
        limit = own.streams.limit(source)
        _end_streams_at_exit()
        if not source.detaches and "gunicorn.socket" in environ:
            _end_streams_with_worker(environ, limit)
        if self._refuse_with == 503 and own.dispatcher.is_full(client_id, limit):
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
        """Return the same stream without HTTP. Iterate it in one thread, and close it to disconnect.

        :param last_event_id: the id after which to continue. The other parameters are those of :meth:`connect`.
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
        """Return the current end of the log as a cursor.

        Call it before you read the data of a page, and put it into the stream's URL as ``lastEventId``. The stream then
        starts where the data ends, and no message is missed in between.

        If the log cannot be reached, the method does not fail: it returns a cursor that no log knows. A stream that
        starts there gets a gap, ``epoch`` or ``bad_id``, as soon as the log is back, and the page can load its data
        again.

        :param zone: the zones of the stream. If the log has several partitions, this makes the cursor shorter.
        :raises ValueError: if a name is invalid.
        :raises TypeError: if the zone is neither a name nor a list of names.
        """
        zones = zone if zone is ALL else self._check_zones(zone)
        own = self._own
        note_served()
        try:
            own.dispatcher.start()
            return str(self._log.cursor(zones))
        except LogError as error:
            logger.warning("a page gets a cursor that will lead to a gap: %s", error)
            return NOWHERE

    def history(
        self,
        zone: str | Sequence[str] = "default",
        *,
        client_id: str | None = None,
        since: Since = "oldest",
        limit: int = 100,
    ) -> HistoryPage:
        """Return messages that the log still has, as a list.

        It includes the messages to everyone, and those to the client, if there is one. Messages that exclude some
        sessions are included, too.

        :param zone: the name of a zone, or several names.
        :param since: where to begin: ``"oldest"``, a number *n* for the last *n* messages, or a cursor or event id
            after which to begin. None returns no messages, only the cursor of the end.
        :param limit: the maximum number of messages. If there are more, the oldest are returned, and ``cursor`` is the
            place to read on from.
        :raises LogError: if the log cannot be reached.
        :raises ValueError: if a name, ``since`` or ``limit`` is invalid.
        :raises TypeError: if an argument has the wrong type.
        """
        zones = self._check_zones(zone)
        client_id = None if client_id is None else check_name("client_id", client_id)
        check_number("limit", limit, (int,))
        start = StartPosition(since=since)
        own = self._own
        note_served()
        own.dispatcher.start()
        return read_history(self._log, zones, client_id, start, limit)

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


def _end_streams_with_worker(environ: dict[str, Any], limit: int) -> None:
    """End the streams that stay on threads when gunicorn's worker is told to stop."""
    worker = gunicorn_worker.find()
    if worker is not None:
        gunicorn_worker.watch(worker, end_all_streams)
        gunicorn_worker.check_threads(worker, limit)
    elif environ.get("SERVER_SOFTWARE", "").startswith("gunicorn"):
        warn_of_hidden_worker()


@functools.cache
def _end_streams_at_exit() -> None:
    """Ask all clients to reconnect when the process exits, for whatever reason. Registered once per process."""
    atexit.register(end_all_streams)
