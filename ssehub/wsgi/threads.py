"""Streams that a thread (or greenlet) of the server iterates, because they were not taken over."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator

from ssehub.log import Gap
from ssehub.server.connection import Connection
from ssehub.server.dispatcher import Dispatcher
from ssehub.server.settings import jitter
from ssehub.wsgi.writer_loop import DEAD


class ThreadStream:
    """The chunks of one stream, iterated by one thread. The watcher looks at it from another.

    :param max_age: seconds after which it has to end, if that is sooner than the hub's ``max_age``.
    :ivar writing_since: when the write began that is still going on (``time.monotonic()``), else None.
    :ivar beat: seconds of silence before a heartbeat.
    :ivar expires: when it has to end (``time.monotonic()``).
    :ivar alarm: when it has to wake for a heartbeat, or because it is too old (``time.monotonic()``).
    """

    def __init__(self, dispatcher: Dispatcher, connection: Connection, max_age: float | None = None) -> None:
        self.connection = connection
        self.writing_since: float | None = None
        settings = dispatcher.settings
        self._dispatcher = dispatcher
        self.beat: float = jitter(settings.heartbeat)
        self.expires: float = time.monotonic() + min(
            jitter(one) for one in (settings.max_age, max_age, float("inf")) if one
        )
        self.alarm: float = min(time.monotonic() + self.beat, self.expires)

    def wake(self) -> None:
        """Wake its thread, if it sleeps."""
        self.connection.wake()

    def close(self, reason: str) -> bool:
        """Ask it to end."""
        return self.connection.close(reason)

    def chunks(self, preamble: bytes) -> Iterator[bytes]:
        """Block until something is due, and give it as a chunk of bytes, until the stream ends.

        :param preamble: the first chunk; empty if it was given already.
        """
        self.connection.queue = queue.Queue()  # looked up now: gevent patches after import
        if preamble:
            yield from self._write(preamble)
        reader, connection = self.connection.reader, self.connection
        while connection.closed not in DEAD:
            chunk = self._take()
            if chunk:
                messages, sent = reader.messages, reader.sent
                yield from self._write(chunk, messages, sent)
            now = time.monotonic()
            if now >= self.expires:
                connection.close("max_age")
            if connection.closed:
                if connection.closed not in DEAD:
                    yield self._dispatcher.settings.farewell()
                return
            if chunk:
                continue
            if now >= self.alarm:
                yield from self._write(reader.heartbeat())
            else:
                self._dispatcher.wakeups.sleep(connection)

    def _take(self) -> bytes:
        connection = self.connection
        found = self._dispatcher.take(connection)
        if not isinstance(found, Gap):
            return found
        self._dispatcher.counters.count("gaps")
        self._dispatcher.hooks.on_gap.fire(connection, found)
        return connection.reader.report(found)

    def _write(self, chunk: bytes, messages: int = 0, sent: float = 0.0) -> Iterator[bytes]:
        self.writing_since = time.monotonic()
        yield chunk
        self.writing_since = None
        # What it had missed while it was away tells nothing of how long messages take.
        delay = time.time() - sent if sent > self.connection.connected_at else None
        self._dispatcher.counters.wrote(1, messages, len(chunk), delay)
        self.alarm = min(time.monotonic() + self.beat, self.expires)
