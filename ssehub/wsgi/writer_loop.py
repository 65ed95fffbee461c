"""WriterLoop: the writer's thread, and its streams. The head of :mod:`ssehub.wsgi.writer` explains how it works."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import ParamSpec

from ssehub.exceptions import LogError
from ssehub.log import Entry, Gap, Page, Position
from ssehub.logger import logger
from ssehub.server.connection import Connection
from ssehub.server.dispatcher import Dispatcher
from ssehub.server.page_cache import Chunk, read_chunk
from ssehub.wsgi import sockets
from ssehub.wsgi.groups import Group, Groups
from ssehub.wsgi.poller import Poller, uses_greenlets
from ssehub.wsgi.stream import FLAGS, Stream, frame
from ssehub.wsgi.timers import Timers

P = ParamSpec("P")

#: Reasons of an end after which no last chunk is sent, because the client cannot read it.
DEAD = ("hang-up", "stalled")
#: Number of chunks that are sent to a stream or a group before the others are served.
_CHUNKS = 8
#: Number of streams that are served before other greenlets may run.
_GREENLETS = 256
#: Number of entries announced in one round above which senders wait for the writer; see :meth:`Writer.give_way`.
_AHEAD = 4000

#: A stream to adopt, a connection to serve, an entry with its receivers (None: all in its zone), or a call.
Note = Stream | Connection | tuple[Entry, Sequence[Connection] | None] | Callable[[], None]


class WriterLoop:
    """The thread of a writer, and its streams. Other threads only call the methods down to :meth:`is_behind`.

    :param dispatcher: the dispatcher of the process.
    :param look: called periodically by the thread.
    """

    def __init__(self, dispatcher: Dispatcher, look: Callable[[], None]) -> None:
        self.streams: dict[Connection, Stream] = {}
        #: Number of entries announced so far, and the part of them after which all streams were served.
        self.announced: int = 0
        self.served: int = 0
        #: Number of streams that are adopted or about to be.
        self.expected: int = 0
        self._dispatcher = dispatcher
        self._settings = dispatcher.settings
        self._counters = dispatcher.counters
        self._look = look
        self._notes: collections.deque[Note] = collections.deque()
        self._rung = False
        self._poller = Poller()
        self._groups = Groups()
        self._by_number: dict[int, Stream] = {}
        self._timers: Timers[Stream] = Timers(self._settings.tick, time.monotonic())
        #: Entries for single streams that have been sent all earlier entries.
        self._direct: dict[Stream, list[Entry]] = {}
        #: Streams that have to be served by themselves, and groups with new entries.
        self._ready: dict[Stream, None] = {}
        self._news: dict[Group, None] = {}
        #: The last entry of each partition whose note was taken.
        self._ends: dict[int, Position] = {}
        self._lock = threading.Lock()
        self.has_ended: bool = False
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="ssehub-writer", daemon=True)
        self._greenlets = uses_greenlets()
        self._served = 0

    def start(self) -> None:
        """Start the thread.

        :raises RuntimeError: if no more threads can be started.
        """
        try:
            self._thread.start()
        except BaseException:
            self._poller.close()
            raise

    def adopt(self, stream: Stream) -> bool:
        """Leave a note to adopt a stream. False if the thread has ended."""
        with self._lock:
            if not self.has_ended:
                self.expected += 1
                self.note(stream)
            return not self.has_ended

    def note(self, note: Note) -> None:
        """Leave a note."""
        self._notes.append(note)
        if not self._rung:
            self._rung = True
            self._poller.ring()

    def stop(self, timeout: float) -> None:
        """Stop the thread, and wait for it.

        :param timeout: maximum number of seconds to wait.
        """
        self._stopped = True
        self._poller.ring()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def is_behind(self) -> bool:
        """Return whether so many entries were announced since the last round that senders should wait."""
        if self.announced - self.served < _AHEAD or self.has_ended or self._stopped:
            return False
        return self._thread is not threading.current_thread()

    # The rest of the class runs in the thread.

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._round()
        except BaseException:
            logger.exception("the writer has failed: its streams are closed")
        with self._lock:
            self.has_ended = True
        self._close_all()
        self._poller.close()

    def _close_all(self) -> None:
        """Close the remaining streams when the thread ends."""
        with contextlib.suppress(IndexError):
            while True:
                note = self._notes.popleft()
                if isinstance(note, Stream):
                    self.streams[note.connection] = note
                    self._groups.add(note)
        for stream in list(self.streams.values()):
            with contextlib.suppress(Exception):
                self._finish(stream, "error")

    def _round(self) -> None:
        """Serve all streams that can be served now."""
        self._rung = False
        announced = self.announced
        self._take_notes()
        busy = self._ready or self._news or self._direct
        timeout = 0.0 if busy else max(0.0, self._timers.next_tick - time.monotonic())
        for number, is_gone in self._poller.wait(timeout):
            if (stream := self._by_number.get(number)) is not None:
                self._on_event(stream, is_gone)
        if time.monotonic() >= self._timers.next_tick:
            self._tick()
        direct, self._direct = self._direct, {}
        for stream, entries in direct.items():
            self._send_direct(stream, entries)
            self._let_others_run(1)
        news, self._news = self._news, {}
        for group in news:
            if group.streams:
                self._send_to_group(group)
        ready, self._ready = self._ready, {}
        for stream in ready:
            self._serve(stream)
            self._let_others_run(1)
        self.served = announced

    def _take_notes(self) -> None:
        notes = self._notes
        while notes:
            note = notes.popleft()
            if isinstance(note, Connection):
                if (stream := self.streams.get(note)) is not None:
                    self._make_ready(stream)
            elif isinstance(note, tuple):
                self._take_entry(*note)
            elif isinstance(note, Stream):
                self._adopt(note)
            else:
                note()

    def _take_entry(self, entry: Entry, receivers: Sequence[Connection] | None) -> None:
        partition = entry.position.partition
        self._ends[partition] = entry.position
        if receivers is None:
            self._news.update(dict.fromkeys(self._groups.of(entry.packet.zone, partition)))
            return
        for connection in receivers:
            if (stream := self.streams.get(connection)) is None or stream.busy:
                continue
            if stream.reader.invalid or len(connection.partitions) > 1 or self._groups.of_stream(stream) in self._news:
                self._make_ready(stream)
            else:
                self._direct.setdefault(stream, []).append(entry)

    def _make_ready(self, stream: Stream) -> None:
        stream.busy = True
        self._ready[stream] = None

    def _adopt(self, stream: Stream) -> None:
        self.streams[stream.connection] = self._by_number[stream.number] = stream
        self._groups.add(stream)
        try:
            self._poller.add(stream.number)
        except OSError as error:  # the kernel's limit of watched descriptors is reached
            logger.error("a stream cannot be watched: %s", error)
            return self._finish(stream, "error")
        self._set_timer(stream)
        self._flush(stream)
        if stream.connection in self.streams and stream.rest is not None:
            self._wait_writable(stream)
        return None

    def look_at_all(self, partition: int) -> None:
        """Serve each stream that reads a partition by itself."""
        self._ends.pop(partition, None)
        for stream in self.streams.values():
            if partition in stream.connection.partitions:
                self._make_ready(stream)

    def cut(self, connections: Iterable[Connection]) -> None:
        """End streams at once."""
        for connection in connections:
            if (stream := self.streams.get(connection)) is not None:
                self._finish(stream, "stalled")

    def _on_event(self, stream: Stream, is_gone: bool) -> None:
        if is_gone:
            self._finish(stream, "hang-up")
        elif stream.rest is not None:
            self._flush(stream)

    # Sending to a group

    def _send_to_group(self, group: Group) -> None:
        for _ in range(_CHUNKS):
            chunk: Chunk | Page | None = None
            with contextlib.suppress(LogError):
                chunk = read_chunk(group.log, group.place, group.interest, group.upto(self._ends))
            if not isinstance(chunk, Chunk):  # each stream determines by itself whether it has to report a gap
                for stream in group.streams:
                    self._make_ready(stream)
                group.restart()
                return
            if chunk.messages:
                fit, others = group.split(chunk)
                for stream in others:
                    self._make_ready(stream)
                self._send_chunk(chunk, fit)
            group.advance(chunk)
            if not chunk.messages:
                return
        self._news[group] = None

    def _send_chunk(self, chunk: Chunk, streams: Sequence[Stream]) -> None:
        """Send the same bytes to many streams. The writer spends most of its time here: about 4 microseconds each."""
        data, after = chunk.data, chunk.after
        assert chunk.last is not None and chunk.first is not None
        told = chunk.last.cursor
        framed = frame(data)
        sent, now = chunk.first.sent, time.monotonic()
        slow: list[tuple[Stream, bytes, int]] = []
        gone: list[Stream] = []
        whole = 0
        for count, stream in enumerate(streams, 1):
            wire = framed if stream.chunked else data
            try:
                taken = stream.sock.send(wire, FLAGS)
            except BlockingIOError:
                taken = 0
            except OSError:
                gone.append(stream)
                continue
            reader = stream.reader
            reader.place = after
            reader.told = told
            stream.written = now
            if taken == len(wire):
                whole += 1
            else:
                slow.append((stream, wire, taken))
            if not count % _GREENLETS:
                self._counters.wrote(whole, chunk.messages, len(data), time.time() - sent if sent else None)
                whole = 0
                self._let_others_run(_GREENLETS)
                now = time.monotonic()
        self._counters.wrote(whole, chunk.messages, len(data), time.time() - sent if sent else None)
        self._counters.wrote(len(slow), chunk.messages, len(data), None)
        self._let_others_run(len(streams) % _GREENLETS)
        for stream, wire, taken in slow:
            stream.keep_rest(wire, taken, sent)
            self._wait_writable(stream)
        for stream in gone:
            self._finish(stream, "hang-up")

    def _let_others_run(self, streams: int) -> None:
        """Count served streams, and let other greenlets run from time to time."""
        self._served += streams
        if self._served >= _GREENLETS:
            self._served = 0
            if self._greenlets:
                time.sleep(0)

    def _send_direct(self, stream: Stream, entries: Sequence[Entry]) -> None:
        """Send a stream the entries for it alone. It has been sent all earlier entries, so the log is not read.

        A stream that has become busy reads the entries from the log.
        """
        if stream.busy or stream.connection not in self.streams:
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

    # Serving one stream

    def _attempt(self, stream: Stream, act: Callable[P, None], *arguments: P.args, **named: P.kwargs) -> None:
        """Do something with a stream. If that fails, only this stream ends."""
        try:
            act(*arguments, **named)
        except OSError:
            self._finish(stream, "hang-up")
        except Exception:
            logger.exception("a stream has failed: %r", stream.connection)
            self._finish(stream, "error")

    def _serve(self, stream: Stream) -> None:
        """Send a stream everything that is due, as far as its socket accepts it."""
        if stream.connection in self.streams:
            self._attempt(stream, self._serve_some, stream)

    def _serve_some(self, stream: Stream) -> None:
        connection = stream.connection
        for _ in range(_CHUNKS):
            if connection.closed in DEAD:
                return self._finish(stream, "hang-up")
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
                    self._finish(stream, "shutdown")
                return None
            else:
                break
        else:
            self._make_ready(stream)
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
            self._wait_writable(stream)

    def _wait_writable(self, stream: Stream) -> None:
        stream.busy = True
        self._poller.set_writable(stream.number, True)
        self._set_timer(stream)

    def _flush(self, stream: Stream) -> None:
        try:
            sent_at = stream.flush()
        except OSError:
            return self._finish(stream, "hang-up")
        if stream.rest is not None:
            return None
        self._poller.set_writable(stream.number, False)
        if sent_at:
            self._counters.wrote(1, 0, 0, time.time() - sent_at)
        if stream.finishing:
            return self._finish(stream, "shutdown")
        self._set_timer(stream)
        return self._make_ready(stream)

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
                self.note(lambda: self._go_on(stream, gap))

        stream.run(f"on_gap of {connection!r}", _fire)
        return False

    def _go_on(self, stream: Stream, gap: Gap) -> None:
        """Report a gap after its hook has run."""
        if stream.connection in self.streams:
            stream.hooking = False
            self._attempt(stream, self._write, stream, stream.reader.report(gap))
            self._make_ready(stream)

    # Time

    def _tick(self) -> None:
        with contextlib.suppress(Exception):  # an error in the periodic work must not end the writer
            self._look()
        for stream in self._timers.expired(time.monotonic()):
            self._on_timer(stream, time.monotonic())
            self._let_others_run(1)

    def _set_timer(self, stream: Stream) -> None:
        self._timers.set(stream, self._due(stream))

    def _on_timer(self, stream: Stream, now: float) -> None:
        if stream.rest is not None:
            if now >= stream.rest_since + self._settings.stall_timeout:
                return self._finish(stream, "stalled")
        elif sockets.unanswered(stream.sock) > 2 * self._settings.heartbeat:
            return self._finish(stream, "hang-up")
        elif now >= stream.expires:
            stream.connection.close("max_age")
        elif now >= stream.written + stream.beat and not stream.hooking:
            self._serve(stream)
            if stream.connection not in self.streams:
                return None
            if not stream.busy and now >= stream.written + stream.beat:
                self._attempt(stream, self._write, stream, stream.reader.heartbeat())
                if stream.connection not in self.streams:
                    return None
        return self._timers.set(stream, max(now + self._settings.tick, self._due(stream)))

    def _due(self, stream: Stream) -> float:
        if stream.rest is not None:
            return stream.rest_since + self._settings.stall_timeout
        return min(stream.written + stream.beat, stream.expires)

    def _finish(self, stream: Stream, reason: str) -> None:
        """Close a stream's connection, remove the stream, and run its last hooks."""
        connection = stream.connection
        if self.streams.pop(connection, None) is None:
            return
        with self._lock:
            self.expected -= 1
        self._by_number.pop(stream.number, None)
        self._ready.pop(stream, None)
        self._timers.cancel(stream)
        self._groups.remove(stream)
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
