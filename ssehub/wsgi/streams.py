"""Streams: the life of a connection, from a server's first request for bytes to its end.

There are three ways in which a stream is served:

* On a thread: the server's thread iterates the response, and the server writes (:mod:`ssehub.wsgi.threads`).
* Parked: the socket was taken over from the server (:mod:`ssehub.wsgi.takeover`). The writer writes
  (:mod:`ssehub.wsgi.writer`), and the server's thread blocks on a queue until the stream ends. So the server's own
  limits go on to hold. The thread also runs the stream's hooks.
* Detached: the socket was taken over, and for the server the response has ended. Its thread is free. A small pool of
  threads runs the stream's hooks.
"""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from ssehub.background import start_missing
from ssehub.events import Message
from ssehub.logger import logger
from ssehub.server.connection import Connection
from ssehub.server.dispatcher import Dispatcher
from ssehub.server.registry import Expected
from ssehub.server.settings import HubSettings
from ssehub.server.start_position import StartPosition
from ssehub.wsgi import sockets
from ssehub.wsgi.body import Bodies, Body, OnClose
from ssehub.wsgi.hook_pool import HookPool, StreamHooks
from ssehub.wsgi.source import NO_REQUEST, Source
from ssehub.wsgi.stream import Stream
from ssehub.wsgi.takeover import NotTaken, Takeover
from ssehub.wsgi.threads import ThreadStream
from ssehub.wsgi.watcher import Watcher
from ssehub.wsgi.writer import Writer

if TYPE_CHECKING:
    from concurrent.futures import Future

#: A hub that is full tells its clients to wait this many times ``retry`` (and up to twice that, spread).
REFUSAL = 5
#: Descriptors that streams leave to everything else, at least, and as a share of what the process may open.
_SPARE, _SPARE_SHARE = 64, 8


class Streams:
    """Serves the connections of a process. Safe to use from any thread."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._settings = dispatcher.settings
        self._pool = HookPool()
        self._bodies = Bodies(lambda end: self._pool.run("the end of a stream that was not closed", end))
        #: Closes the log of a hub that was collected; None as long as the hub is there.
        self._close_log: Callable[[], None] | None = None
        self._watcher = Watcher(dispatcher.settings, self._look)
        self._bodies.on_drop = self._watcher.ring
        self._writer = Writer(dispatcher, self._look)
        self._lock = threading.Lock()
        #: Streams that are open and were taken over, by whether they are detached.
        self._taken_over = {False: 0, True: 0}
        dispatcher.add_delivery(self._writer, self.stats)

    def body(
        self,
        zones: tuple[str, ...],
        client_id: str | None,
        metadata: Any,
        start: StartPosition,
        source: Source,
        max_age: float | None = None,
    ) -> Body:
        """Make the body of a response: the life of a connection.

        Nothing happens before the server asks for the first bytes: a generator that nobody starts runs no ``finally``.

        :param max_age: seconds after which it ends, if that is sooner than the hub's ``max_age``.
        """
        expected = self._dispatcher.registry.expect(zones, client_id)
        return self._bodies.make(lambda on_close: self._life(expected, metadata, start, source, max_age, on_close))

    def limit(self, source: Source) -> int:
        """Return how many streams there may be."""
        if source is NO_REQUEST and self._settings.max_connections is None:
            return sys.maxsize  # no descriptor is taken
        return most_streams(self._settings, 1 if source.detaches else 2)

    def stats(self) -> dict[str, Any]:
        """Return how many streams were taken over and are open, how many of these are detached, and what fails."""
        failure = self._watcher.failure
        with self._lock:
            return {
                "taken_over": sum(self._taken_over.values()),
                "detached": self._taken_over[True],
                "failing": {} if failure is None else {"watcher": failure},
            }

    def give_way(self) -> None:
        """Have a sender wait a moment for the writer, if that is far behind."""
        self._writer.give_way()

    def abandon(self, close_log: Callable[[], None]) -> None:
        """Note that the hub was collected. Its threads end when it has no stream any more. It takes no lock.

        :param close_log: called then.
        """
        self._close_log = close_log
        self._watcher.ring()

    def close(self, timeout: float) -> None:
        """End all streams; :meth:`ssehub.Hub.end_streams` says how."""
        self._dispatcher.takes_streams = False
        deadline = time.monotonic() + timeout
        connections = self._dispatcher.registry.find()
        for connection in connections:
            connection.close("shutdown")
        own = threading.get_ident()
        late = [one for one in connections if one.thread != own and not one.wait(max(0.0, deadline - time.monotonic()))]
        self._watcher.cut(late)
        self._writer.cut(late)
        self._watcher.close()
        self._writer.close(1.0)
        self._bodies.reap()
        self._pool.close(max(0.0, deadline - time.monotonic()))

    def _look(self) -> None:
        """Do what comes up; the threads of the watcher and of the writer call this now and then."""
        self._pool.look()
        self._bodies.reap()
        start_missing()
        if self._close_log is not None and self._dispatcher.registry.is_unused():
            self._dispatcher.takes_messages = False
            self.close(0.0)
            self._close_log()

    # What follows runs in the thread that serves the request.

    def _life(
        self,
        expected: Expected,
        metadata: Any,
        start: StartPosition,
        source: Source,
        max_age: float | None,
        on_close: OnClose,
    ) -> Generator[bytes, None, None]:
        dispatcher = self._dispatcher
        connection = None
        if not expected.cancelled:
            connection = dispatcher.admit(expected.zones, expected.client_id, metadata, start, self.limit(source))
        is_wanted = dispatcher.registry.arrive(expected)
        if connection is None:
            dispatcher.counters.count("refused")
            # A hub that closes is about to be replaced: then there is no need to stay away for longer. And the
            # application has to decide anew about a client that was disconnected.
            yield self._settings.farewell(REFUSAL if dispatcher.takes_streams and is_wanted else 1)
        else:
            if not is_wanted:  # it was disconnected just now
                connection.close()
            yield from self._serve(connection, metadata, source, max_age, on_close)
        if not dispatcher.takes_streams and source.socket is not None:
            sockets.take_no_more(source.socket)

    def _serve(
        self, connection: Connection, metadata: Any, source: Source, max_age: float | None, on_close: OnClose
    ) -> Generator[bytes, None, None]:
        reason = "error"
        stream = ThreadStream(self._dispatcher, connection, max_age)
        hooks: StreamHooks | None = None  # until the writer has the stream
        try:
            self._dispatcher.cluster.enter(connection, metadata)
            self._dispatcher.hooks.on_connection.fire(connection)
            if not self._dispatcher.takes_streams:  # close() may have looked for connections just before
                connection.close("shutdown")
            preamble = _preamble(connection, self._settings.retry)
            takeover = self._begin_takeover(stream, source)
            if takeover is not None:
                try:
                    yield preamble
                except BaseException:
                    takeover.give_back()
                    raise
                hooks = self._finish_takeover(takeover, stream, source, preamble, on_close)
                preamble = b""
            if hooks is None:
                yield from self._serve_on_thread(stream, source, preamble)
            elif takeover is not None and not source.detaches:
                try:
                    hooks.serve()
                finally:
                    takeover.unpark()
        except GeneratorExit:
            reason = "hang-up"
            raise
        finally:
            if hooks is None:
                self._dispatcher.end(connection, reason)

    def _serve_on_thread(self, stream: ThreadStream, source: Source, preamble: bytes) -> Iterator[bytes]:
        """Give the chunks of a stream that was not taken over, from the preamble on if that was not sent yet."""
        leaving: Future[None] | None = None
        try:
            self._tune(source.socket)
            if not self._watcher.watch(stream, source.socket):  # it would have no heartbeats: it comes back later
                stream.close("error")
            if source.receiver is not None:
                leaving = source.receiver.watch(lambda: stream.close("hang-up"))
            yield from stream.chunks(preamble)
        finally:
            self._watcher.unwatch(stream)
            if leaving is not None:
                leaving.cancel()

    def _tune(self, number: int | None) -> None:
        """Have the kernel notice a peer that has vanished."""
        if number is not None:
            with contextlib.suppress(OSError):
                sockets.tune(number, self._settings.heartbeat, self._settings.stall_timeout)

    # Taking over

    def _begin_takeover(self, stream: ThreadStream, source: Source) -> Takeover | None:
        if self._settings.detach is False or stream.connection.closed or source is NO_REQUEST:
            return None
        obstacle = source.obstacle
        if obstacle is None and not self._writer.start():
            obstacle = "no thread can be started"
        if obstacle is None and source.socket is not None:
            self._tune(source.socket)
            try:
                return Takeover(source.socket)
            except OSError as error:
                obstacle = f"no descriptor is left: {error}"
                if source.detaches:  # on its thread it would take one that others need: it comes back later
                    stream.connection.close("error")
        if obstacle is not None:
            self._not_taken(obstacle, source)
        return None

    def _finish_takeover(
        self, takeover: Takeover, stream: ThreadStream, source: Source, preamble: bytes, on_close: OnClose
    ) -> StreamHooks | None:
        """Hand the stream to the writer, or give it back to the server: then the answer is None."""
        connection = stream.connection
        try:
            head = takeover.judge(preamble)
        except NotTaken as obstacle:
            takeover.give_back()
            self._not_taken(str(obstacle), source)
            return None
        client = takeover.keep()
        on_close.append(takeover.release)
        self._count(source.detaches, 1)
        self._dispatcher.counters.wrote(1, 0, len(preamble), None)
        own: queue.Queue[Any] | None = None
        if source.detaches:
            connection.thread = 0
        else:
            own = queue.Queue()  # looked up now: gevent patches after import
            takeover.park()
        hooks = StreamHooks(self._pool, connection, own)

        def _on_end() -> None:
            self._count(source.detaches, -1)
            hooks.end()

        connection.delivery = self._writer
        # Nothing was sent to the client yet: if a signal's handler ends this thread, the client gets no half response.
        self._writer.adopt(Stream(connection, client, head, hooks.run, stream.beat, stream.expires, _on_end))
        return hooks

    def _not_taken(self, obstacle: str, source: Source) -> None:
        if not self._dispatcher.counters.not_taken(obstacle):
            return
        if source.has_one_thread:
            logger.error(
                "a stream takes the server's only thread (wsgi.multithread is false), and other requests wait until it"
                " ends: %s. Use threads (gunicorn -k gthread), or remove the cause",
                obstacle,
            )
        else:
            logger.warning("streams stay on the server's threads: %s (detach=False if that is meant)", obstacle)

    def _count(self, detached: bool, number: int) -> None:
        with self._lock:
            self._taken_over[detached] += number


def most_streams(settings: HubSettings, each: int) -> int:
    """Return how many streams a process may have, so that descriptors are left for everything else.

    :param each: descriptors that a stream takes.
    """
    if settings.max_connections is not None:
        return settings.max_connections
    try:
        import resource
    except ImportError:  # Windows, where the process may open any number
        return sys.maxsize
    may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if may_open == resource.RLIM_INFINITY:
        may_open = 1 << 20
    return max(1, (may_open - max(_SPARE, may_open // _SPARE_SHARE)) // each)


def _preamble(connection: Connection, retry: int) -> bytes:
    # No server sends the headers before the first chunk that is not empty. With the cursor, a client that is cut off
    # before its first message still knows its place.
    who = json.dumps({"session_id": connection.id, "client_id": connection.client_id})
    return Message(who, "ssehub.open", id=connection.reader.cursor(), retry=retry).encode()
