"""StreamTable: the streams of a writer, each with its watched socket, timer and group, and how a stream ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from ssehub.logger import logger
from ssehub.server.connection import Connection
from ssehub.server.dispatcher import Dispatcher
from ssehub.wsgi.groups import Groups
from ssehub.wsgi.poller import Poller
from ssehub.wsgi.stream import Stream
from ssehub.wsgi.timers import Timers


class StreamTable:
    """All streams that a writer's thread writes. Only this thread uses it.

    :param dispatcher: the dispatcher of the process.
    :param poller: watches the sockets.
    :param on_finish: called after a stream was removed and before its connection is closed.
    :ivar by_connection: the streams by connection.
    :ivar by_number: the streams by the number of their descriptor.
    :ivar timers: the timer of each stream.
    :ivar groups: the groups of the streams.
    """

    def __init__(self, dispatcher: Dispatcher, poller: Poller, on_finish: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._settings = dispatcher.settings
        self._poller = poller
        self._on_finish = on_finish
        self.by_connection: dict[Connection, Stream] = {}
        self.by_number: dict[int, Stream] = {}
        self.timers: Timers[Stream] = Timers(self._settings.tick, time.monotonic())
        self.groups: Groups = Groups()
        #: Streams that have to be served by themselves.
        self.ready: dict[Stream, None] = {}

    def add(self, stream: Stream) -> None:
        """Add a stream. Its socket is not watched yet."""
        self.by_connection[stream.connection] = self.by_number[stream.number] = stream
        self.groups.add(stream)

    def make_ready(self, stream: Stream) -> None:
        """Note that a stream has to be served by itself."""
        stream.busy = True
        self.ready[stream] = None

    def take_ready(self) -> dict[Stream, None]:
        """Return the streams that have to be served by themselves, and forget them."""
        ready, self.ready = self.ready, {}
        return ready

    def wait_writable(self, stream: Stream) -> None:
        """Wait until a stream's socket accepts the rest of a write."""
        stream.busy = True
        self._poller.set_writable(stream.number, True)
        self.set_timer(stream)

    def stop_waiting(self, stream: Stream) -> None:
        """Stop waiting, after the socket has accepted everything."""
        self._poller.set_writable(stream.number, False)

    def set_timer(self, stream: Stream) -> None:
        """Set a stream's timer to the time when something is due: a heartbeat, its end, or its end for a stall."""
        self.timers.set(stream, self.due(stream))

    def due(self, stream: Stream) -> float:
        """Return when a stream's timer has to expire."""
        if stream.rest is not None:
            return stream.rest_since + self._settings.stall_timeout
        return min(stream.written + stream.beat, stream.expires)

    def finish(self, stream: Stream, reason: str) -> None:
        """Close a stream's connection, remove the stream, and run its last hooks."""
        connection = stream.connection
        if self.by_connection.pop(connection, None) is None:
            return
        self._on_finish()
        self.by_number.pop(stream.number, None)
        self.ready.pop(stream, None)
        self.timers.cancel(stream)
        self.groups.remove(stream)
        with contextlib.suppress(Exception):
            self._poller.remove(stream.number)
        connection.close(reason)
        stream.close()
        try:
            self._dispatcher.dismiss(connection, reason)
        except Exception:  # continue with the other streams, and run this stream's hooks
            logger.exception("a stream could not be removed: %r", connection)
        if self._dispatcher.hooks.on_disconnect:
            stream.run(f"on_disconnect of {connection!r}", lambda: self._dispatcher.fire_disconnect(connection))
        else:
            connection.end()
        stream.on_end()
