"""Streams: the life of a connection, from the server's first request for bytes to its end.

There are three ways to serve a stream:

* On a thread: the server's thread iterates the response, and the server writes (:mod:`ssehub.wsgi.threads`).
* Parked: the socket was taken over from the server (:mod:`ssehub.wsgi.takeover`). The writer writes
  (:mod:`ssehub.wsgi.writer`), and the server's thread blocks on a queue until the stream ends, so that the server's own
  limits still apply. This thread also runs the stream's hooks.
* Detached: the socket was taken over, and for the server the response has ended. The server's thread is free. A small
  pool of threads runs the stream's hooks.
"""

from __future__ import annotations

import contextlib
import json
import queue
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
from ssehub.server.start_position import StartPosition
from ssehub.wsgi import sockets
from ssehub.wsgi.body import Bodies, Body, OnClose
from ssehub.wsgi.capacity import REFUSAL, most_streams
from ssehub.wsgi.hook_pool import HookPool, StreamHooks
from ssehub.wsgi.source import NO_REQUEST, Source
from ssehub.wsgi.stream import Stream
from ssehub.wsgi.takeover import NotTaken, Takeover
from ssehub.wsgi.threads import ThreadStream
from ssehub.wsgi.watcher import Watcher
from ssehub.wsgi.writer import Writer

if TYPE_CHECKING:
    from concurrent.futures import Future


class Streams:
    """Serves the connections of a process. Thread-safe."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._settings = dispatcher.settings
        self._pool = HookPool()
        self._bodies = Bodies(lambda end: self._pool.run("the end of a stream that was not closed", end))
        #: Closes the log of a hub that was garbage collected; None while the hub exists.
        self._close_log: Callable[[], None] | None = None
        self._watcher = Watcher(dispatcher.settings, self._look)
        self._bodies.on_drop = self._watcher.ring
        self._writer = Writer(dispatcher, self._look)
        self._lock = threading.Lock()
        #: The number of open streams that were taken over, by whether they are detached.
        self._taken_over = {False: 0, True: 0}
        dispatcher.add_delivery(self._writer, self.stats)
        dispatcher.productions.give_way = self._writer.give_way

    def body(
        self,
        zones: tuple[str, ...],
        client_id: str | None,
        metadata: Any,
        start: StartPosition,
        source: Source,
        max_age: float | None = None,
    ) -> Body:
        """Return the body of a response, which is the life of a connection.

        Nothing is registered until the server asks for the first bytes, because the ``finally`` of a generator that was
        never started does not run.

        :param max_age: seconds after which the stream ends, if that is earlier than the hub's ``max_age``.
        """
        expected = self._dispatcher.registry.expect(zones, client_id)
        return self._bodies.make(lambda on_close: self._life(expected, metadata, start, source, max_age, on_close))

    def limit(self, source: Source) -> int:
        """Return the maximum number of streams."""
        each = 0 if source is NO_REQUEST else 1 if source.detaches else 2
        return most_streams(self._settings, each)

    def stats(self) -> dict[str, Any]:
        """Return the numbers of open streams that were taken over and that are detached, and the tasks that fail."""
        failure = self._watcher.failure
        with self._lock:
            return {
                "taken_over": sum(self._taken_over.values()),
                "detached": self._taken_over[True],
                "failing": {} if failure is None else {"watcher": failure},
            }

    def give_way(self) -> None:
        """Make a sender wait a moment if the writer is far behind."""
        self._writer.give_way()

    def abandon(self, close_log: Callable[[], None]) -> None:
        """Note that the hub was garbage collected. Its threads end after its last stream. Takes no lock.

        :param close_log: called then.
        """
        self._close_log = close_log
        self._watcher.ring()

    def close(self, timeout: float) -> None:
        """End all streams, as :meth:`ssehub.Hub.end_streams` describes."""
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
        """Do periodic work. The threads of the watcher and of the writer call this."""
        self._pool.look()
        self._bodies.reap()
        start_missing()
        if self._close_log is not None and self._dispatcher.registry.is_unused():
            self._dispatcher.takes_messages = False
            self.close(0.0)
            self._close_log()

    # The rest of the class runs in the thread that serves the request.

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
            # If the hub is closing, another process is about to replace it, so a short wait is enough. The same is
            # true for a client that was disconnected just now: the application decides again when it reconnects.
            yield self._settings.farewell(REFUSAL if dispatcher.takes_streams and is_wanted else 1)
        else:
            if not is_wanted:  # disconnected before it was registered
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
            if not self._dispatcher.takes_streams:  # close() may have listed the connections just before this one
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
        """Yield the chunks of a stream that was not taken over, with the preamble if it was not sent yet."""
        leaving: Future[None] | None = None
        try:
            self._tune(source.socket)
            if not self._watcher.watch(stream, source.socket):  # without heartbeats; the client reconnects later
                stream.close("error")
            if source.receiver is not None:
                leaving = source.receiver.watch(lambda: stream.close("hang-up"))
            yield from stream.chunks(preamble)
        finally:
            self._watcher.unwatch(stream)
            if leaving is not None:
                leaving.cancel()

    def _tune(self, number: int | None) -> None:
        """Set the kernel's timeouts for a peer that has vanished."""
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
                if source.detaches:  # on a thread it would use a descriptor that others need: the client reconnects
                    stream.connection.close("error")
        if obstacle is not None:
            self._not_taken(obstacle, source)
        return None

    def _finish_takeover(
        self, takeover: Takeover, stream: ThreadStream, source: Source, preamble: bytes, on_close: OnClose
    ) -> StreamHooks | None:
        """Pass the stream to the writer and return its hooks, or give it back to the server and return None."""
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
            own = queue.Queue()  # resolved at run time, because gevent patches the module after import
            takeover.park()
        hooks = StreamHooks(self._pool, connection, own)

        def _on_end() -> None:
            self._count(source.detaches, -1)
            hooks.end()

        connection.delivery = self._writer
        # Nothing was sent to the client yet. If a signal handler ends this thread, the client gets no partial response.
        self._writer.adopt(Stream(connection, client, head, hooks.run, stream.beat, stream.expires, _on_end))
        return hooks

    def _not_taken(self, obstacle: str, source: Source) -> None:
        if not self._dispatcher.counters.not_taken(obstacle):
            return
        if source.has_one_thread:
            logger.error(
                "a stream uses the server's only thread (wsgi.multithread is false), and other requests wait until it"
                " ends: %s. Use threads (gunicorn -k gthread), or remove the cause",
                obstacle,
            )
        else:
            logger.warning("streams stay on the server's threads: %s (use detach=False if this is intended)", obstacle)

    def _count(self, detached: bool, number: int) -> None:
        with self._lock:
            self._taken_over[detached] += number


def _preamble(connection: Connection, retry: int) -> bytes:
    # Servers send the headers together with the first chunk that is not empty. The chunk includes a cursor, so that a
    # client that is disconnected before its first message can still resume.
    who = json.dumps({"session_id": connection.id, "client_id": connection.client_id})
    return Message(who, "ssehub.open", id=connection.reader.cursor(), retry=retry).encode()
