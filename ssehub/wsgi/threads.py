"""Threads: streams that a thread (or greenlet) of the server iterates, because they were not taken over."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator

from ssehub.log import Gap
from ssehub.server.connection import Connection
from ssehub.server.dispatcher import Dispatcher
from ssehub.server.settings import jitter
from ssehub.wsgi.stream_sender import DEAD


class ThreadStream:
    """The chunks of one stream, iterated by one thread. The watcher's thread observes it.

    :param max_age: seconds after which the stream has to end, if that is earlier than the hub's ``max_age``.
    :ivar writing_since: when the current write began (``time.monotonic()``); None between writes.
    :ivar beat: seconds of silence before a heartbeat.
    :ivar expires: when the stream has to end (``time.monotonic()``).
    :ivar alarm: when the thread has to wake for a heartbeat or for the end of the stream (``time.monotonic()``).
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
        """Wake the stream's thread, if it sleeps."""
        self.connection.wake()

    def close(self, reason: str) -> bool:
        """Ask the stream to end."""
        return self.connection.close(reason)

    def chunks(self, preamble: bytes) -> Iterator[bytes]:
        """Yield chunks of bytes as they become due, until the stream ends. Blocks in between.

        :param preamble: the first chunk; empty if it was sent already.
        """
        self.connection.queue = queue.Queue()  # resolved at run time, because gevent patches the module after import
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
        # Messages from before the client connected say nothing about the delay of a delivery.
        delay = time.time() - sent if sent > self.connection.connected_at else None
        self._dispatcher.counters.wrote(1, messages, len(chunk), delay)
        self.alarm = min(time.monotonic() + self.beat, self.expires)
