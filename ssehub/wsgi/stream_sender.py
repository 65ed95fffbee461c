"""StreamSender: sends single streams what is due: entries for them alone, and what the log has from their place on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ParamSpec

from ssehub.log import Entry, Gap
from ssehub.logger import logger
from ssehub.server.dispatcher import Dispatcher
from ssehub.wsgi.stream import Stream
from ssehub.wsgi.stream_table import StreamTable

P = ParamSpec("P")

#: Reasons of an end after which no last chunk is sent, because the client cannot read it.
DEAD = ("hang-up", "stalled")
#: Number of chunks that are sent to a stream or a group before the others are served.
CHUNKS = 8


class StreamSender:
    """Serves streams one by one. Only the writer's thread uses it.

    :param dispatcher: the dispatcher of the process.
    :param table: the streams of the writer.
    :param note: leaves a call for the writer's thread. Thread-safe.
    """

    def __init__(self, dispatcher: Dispatcher, table: StreamTable, note: Callable[[Callable[[], None]], None]) -> None:
        self._dispatcher = dispatcher
        self._settings = dispatcher.settings
        self._counters = dispatcher.counters
        self._table = table
        self._streams = table.by_connection
        self._note = note

    def send_direct(self, stream: Stream, entries: Sequence[Entry]) -> None:
        """Send a stream the entries for it alone. It has been sent all earlier entries, so the log is not read.

        A stream that has become busy reads the entries from the log.
        """
        if stream.busy or stream.connection not in self._streams:
            return
        reader = stream.reader
        # A heartbeat may have moved the stream's place on in the meantime.
        entries = [entry for entry in entries if reader.place.distance_to(entry.position)]
        if not entries:
            return
        last = entries[-1]
        data = b"".join([entry.data for entry in entries])
        reader.place = last.place
        reader.told = last.cursor
        reader.messages, reader.sent = len(entries), entries[0].sent
        self._attempt(stream, self._write, stream, data)

    def serve(self, stream: Stream) -> None:
        """Send a stream everything that is due, as far as its socket accepts it."""
        if stream.connection in self._streams:
            self._attempt(stream, self._serve_some, stream)

    def heartbeat(self, stream: Stream) -> None:
        """Send a heartbeat."""
        self._attempt(stream, self._write, stream, stream.reader.heartbeat())

    def flush(self, stream: Stream) -> None:
        """Send more of the rest of a write, and serve the stream when all of it is sent."""
        try:
            sent_at = stream.flush()
        except OSError:
            return self._table.finish(stream, "hang-up")
        if stream.rest is not None:
            return None
        self._table.stop_waiting(stream)
        if sent_at:
            self._counters.wrote(1, 0, 0, time.time() - sent_at)
        if stream.finishing:
            return self._table.finish(stream, "shutdown")
        self._table.set_timer(stream)
        return self._table.make_ready(stream)

    def _attempt(self, stream: Stream, act: Callable[P, None], *arguments: P.args, **named: P.kwargs) -> None:
        """Do something with a stream. If that fails, only this stream ends."""
        try:
            act(*arguments, **named)
        except OSError:
            self._table.finish(stream, "hang-up")
        except Exception:
            logger.exception("a stream has failed: %r", stream.connection)
            self._table.finish(stream, "error")

    def _serve_some(self, stream: Stream) -> None:
        connection = stream.connection
        for _ in range(CHUNKS):
            if connection.closed in DEAD:
                return self._table.finish(stream, "hang-up")
            if stream.rest is not None or stream.hooking:
                return None  # continued when the rest is sent or the hook has ended
            found = self._dispatcher.take(connection)
            if isinstance(found, Gap):
                if not self._report(stream, found):
                    return None
            elif found:
                self._write(stream, found)
                if stream.reader.level and stream.rest is None and not connection.closed:
                    break  # later entries leave a note
            elif connection.closed:
                self._write(stream, self._settings.farewell(), is_last=True)
                if stream.rest is None:
                    self._table.finish(stream, "shutdown")
                return None
            else:
                break
        else:
            self._table.make_ready(stream)
            return None
        stream.busy = False
        return None

    def _write(self, stream: Stream, data: bytes, is_last: bool = False) -> None:
        reader, connection = stream.reader, stream.connection
        # Messages from before the client connected say nothing about the delay of a delivery.
        sent = reader.sent if reader.sent > connection.connected_at else 0.0
        sent_at = stream.write(data, sent, is_last)
        self._counters.wrote(1, reader.messages, len(data), time.time() - sent_at if sent_at else None)
        reader.messages, reader.sent = 0, 0.0
        if stream.rest is not None:
            self._table.wait_writable(stream)

    def _report(self, stream: Stream, gap: Gap) -> bool:
        """Report a gap. Return False if a hook has to run first."""
        hook, connection = self._dispatcher.hooks.on_gap, stream.connection
        self._counters.count("gaps")
        if not hook:
            self._write(stream, stream.reader.report(gap))
            return True
        stream.hooking = True

        def _fire() -> None:
            try:
                hook.fire(connection, gap)
            finally:
                self._note(lambda: self._go_on(stream, gap))

        stream.run(f"on_gap of {connection!r}", _fire)
        return False

    def _go_on(self, stream: Stream, gap: Gap) -> None:
        """Report a gap after its hook has run."""
        if stream.connection in self._streams:
            stream.hooking = False
            self._attempt(stream, self._write, stream, stream.reader.report(gap))
            self._table.make_ready(stream)
