"""Writer: writes all streams of a process that were taken over from the server.

One thread, ``ssehub-writer`` (under gevent a greenlet), does for these streams what the server's threads do for others:
it reads the log, frames and sends chunks, and notices clients that disconnect or stall. Its timers send heartbeats and
end old streams.

Other threads only leave notes for it: a stream to adopt, a connection to serve, a new entry in the log. The notes are
in a deque. A thread first appends its note and then rings the poller, unless the mark "already rung" is set. The writer
first clears this mark and then takes the notes. So the writer never waits while there is a note.

Most of its work is to send one message to many streams. Streams in the same zones form a group, and all streams of a
group that are at the same place are sent the same bytes, which are joined and framed once. A stream is busy, and served
by itself, while it differs from its group: it has messages of its own, its socket is full, a hook of it is running, or
it is ending. Its place in the log then determines what it is sent.

The order of messages is kept: a group is never sent a message before an earlier message for one of its clients alone.
Two rules ensure this. First, a chunk for a group only reaches as far as the notes that were taken. Notes come in the
log's order, so every earlier entry has left its note, too. Second, a client that a note names is sent its entry before
the group's chunk: directly, if it has already been sent all earlier entries, or else it is served by itself.

The thread's loop is in :mod:`ssehub.wsgi.writer_loop`. Its streams are in a table (:mod:`ssehub.wsgi.stream_table`).
They are served in groups (:mod:`ssehub.wsgi.group_sender`) and one by one (:mod:`ssehub.wsgi.stream_sender`).
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

#: Maximum number of seconds that a sender waits for the writer, and the interval at which it checks.
_GIVE_WAY, _LOOK = 0.05, 0.001


class Writer:
    """A delivery (see :class:`~ssehub.server.wakeups.Delivery`) for streams that were taken over.

    Thread-safe. The thread starts with the first stream. If it fails, it closes its streams with the reason
    ``"error"``, and the next stream starts a new thread.

    :param dispatcher: the dispatcher of the process.
    :param look: called periodically by the thread.
    """

    def __init__(self, dispatcher: Dispatcher, look: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._look = look
        self._lock = threading.Lock()
        self._loop: WriterLoop | None = None
        self._closed = False

    def start(self) -> bool:
        """Start the thread, if it is not running. False if the writer is closed or no more threads can be started."""
        with self._lock:
            if self._closed:
                return False
            if self._loop is None or self._loop.has_ended:
                try:
                    loop = WriterLoop(self._dispatcher, self._look)
                    loop.start()
                except (RuntimeError, OSError):  # no more threads or descriptors
                    return False
                self._loop = loop
            return True

    def adopt(self, stream: Stream) -> None:
        """Write a stream from now on. After :meth:`close` the stream is closed instead."""
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
        """Serve a connection."""
        if (loop := self._loop) is not None:
            loop.note(connection)

    def wake_all(self, partition: int) -> None:
        """Serve all connections that read a partition."""
        if (loop := self._loop) is not None:
            loop.note(lambda: loop.look_at_all(partition))

    def announce(self, entry: Entry, receivers: Sequence[Connection] | None) -> None:
        """Send an entry to its receivers. None: all streams in the entry's zone."""
        loop = self._loop
        if loop is not None and loop.expected:
            loop.announced += 1
            loop.note((entry, receivers))

    def give_way(self) -> None:
        """Wait a moment if the writer is far behind. This never waits for a client.

        A thread that sends without a pause can occupy the interpreter until the log drops messages that the writer has
        not yet sent.
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
        """Stop the thread, and wait for it. Idempotent.

        :param timeout: maximum number of seconds to wait.
        """
        with self._lock:
            self._closed = True
            loop = self._loop
        if loop is not None:
            loop.stop(timeout)
