"""Writer: writes to all streams of a process that were taken over from the server.

One thread, ``ssehub-writer`` (under gevent a greenlet), does what the server's threads do for other streams: it reads
on in the log, frames, sends, and notices clients that hang up or stall; heartbeats, ages and farewells are its timers.

Other threads only leave notes for it: a stream to adopt, a connection to look at, a zone that has news. The notes are a
deque. A thread appends its note, and then rings the poller unless that was done already; the writer first clears that
mark and then takes the notes. So no note is left lying while the writer waits.

Most of its work is to send one message to many streams. Streams in the same zones are a group, and a group at the same
place is sent the same bytes, which are joined and framed once. A stream is taken out of that, and served by itself, as
long as anything about it is different: it has messages of its own, its socket is full, a hook of it runs, it is ending.
Then its place in the log says what it has to be sent, as everywhere.

A group is never sent a message before one that comes earlier and is for a single one of its clients. For a group's
chunk only reaches as far as the notes that were taken: they come in the log's order, so whatever comes before has left
its note, too. And a client that a note names is sent what it names first: directly, if it has had everything before;
else it is served by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from ssehub.log import Entry
from ssehub.server.connection import Connection
from ssehub.server.dispatcher import Dispatcher
from ssehub.wsgi.stream import Stream
from ssehub.wsgi.writer_loop import WriterLoop

#: Seconds that a sender waits for the writer at most, and between two looks.
_GIVE_WAY, _LOOK = 0.05, 0.001


class Writer:
    """A delivery (see :class:`~ssehub.server.wakeups.Delivery`) for streams that were taken over.

    Safe to use from any thread. The thread starts with the first stream. If it fails, it closes its streams with the
    reason ``"error"``, and the next stream gets a new one.

    :param dispatcher: of the process.
    :param look: called now and then by the thread.
    """

    def __init__(self, dispatcher: Dispatcher, look: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._look = look
        self._lock = threading.Lock()
        self._loop: WriterLoop | None = None
        self._closed = False

    def start(self) -> bool:
        """See that the thread runs; False if it cannot: the writer is closed, or there can be no more threads."""
        with self._lock:
            if self._closed:
                return False
            if self._loop is None or self._loop.has_ended:
                try:
                    loop = WriterLoop(self._dispatcher, self._look)
                    loop.start()
                except (RuntimeError, OSError):  # no more threads, or descriptors
                    return False
                self._loop = loop
            return True

    def adopt(self, stream: Stream) -> None:
        """Write a stream from now on; one that comes after :meth:`close` is closed."""
        while self.start():
            loop = self._loop
            if loop is not None and loop.adopt(stream):
                return
        stream.connection.close("error")
        stream.close()
        try:
            self._dispatcher.end(stream.connection, "error")
        finally:
            stream.on_end()

    def wake(self, connection: Connection) -> None:
        """Look at a connection."""
        if (loop := self._loop) is not None:
            loop.note(connection)

    def wake_all(self, partition: int) -> None:
        """Look at all connections that read a partition."""
        if (loop := self._loop) is not None:
            loop.note(lambda: loop.look_at_all(partition))

    def announce(self, entry: Entry, receivers: Sequence[Connection] | None) -> None:
        """Send an entry to the streams that it is for."""
        loop = self._loop
        if loop is not None and loop.expected:
            loop.announced += 1
            loop.note((entry, receivers))

    def give_way(self) -> None:
        """Wait a moment if the writer is far behind. This never waits for a client.

        A thread that sends without a pause can keep the interpreter to itself, until the log drops messages that the
        writer has not come to.
        """
        loop = self._loop
        deadline = 0.0
        while loop is not None and loop.is_behind():
            now = time.monotonic()
            deadline = deadline or now + _GIVE_WAY
            if now >= deadline:
                return
            time.sleep(_LOOK)

    def cut(self, connections: Iterable[Connection]) -> None:
        """End streams at once, without a last chunk."""
        if (loop := self._loop) is not None:
            wanted = list(connections)
            loop.note(lambda: loop.cut(wanted))

    def close(self, timeout: float) -> None:
        """End the thread, and wait for it. Idempotent.

        :param timeout: seconds.
        """
        with self._lock:
            self._closed = True
            loop = self._loop
        if loop is not None:
            loop.stop(timeout)
