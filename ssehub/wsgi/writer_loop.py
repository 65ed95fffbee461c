"""WriterLoop: the writer's thread: takes notes, waits for events and timers, and has streams and groups served.

The head of :mod:`ssehub.wsgi.writer` explains how it works.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from ssehub.log import Entry, Position
from ssehub.logger import logger
from ssehub.server.connection import Connection
from ssehub.server.dispatcher import Dispatcher
from ssehub.wsgi import sockets
from ssehub.wsgi.greenlets import GreenletSwitch
from ssehub.wsgi.group_sender import GroupSender
from ssehub.wsgi.groups import Group
from ssehub.wsgi.poller import Poller
from ssehub.wsgi.stream import Stream
from ssehub.wsgi.stream_sender import StreamSender
from ssehub.wsgi.stream_table import StreamTable

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
        #: Number of entries announced so far, and the part of them after which all streams were served.
        self.announced: int = 0
        self.served: int = 0
        #: Number of streams that are adopted or about to be.
        self.expected: int = 0
        self._settings = dispatcher.settings
        self._look = look
        self._notes: collections.deque[Note] = collections.deque()
        self._rung = False
        self._poller = Poller()
        self._table = StreamTable(dispatcher, self._poller, self._forget)
        self.streams: dict[Connection, Stream] = self._table.by_connection
        self._groups = self._table.groups
        self._switch = GreenletSwitch()
        self._sender = StreamSender(dispatcher, self._table, self.note)
        self._group_sender = GroupSender(dispatcher, self._table, self._switch)
        #: Entries for single streams that have been sent all earlier entries.
        self._direct: dict[Stream, list[Entry]] = {}
        #: Groups with new entries.
        self._news: dict[Group, None] = {}
        #: The last entry of each partition whose note was taken.
        self._ends: dict[int, Position] = {}
        self._lock = threading.Lock()
        self.has_ended: bool = False
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="ssehub-writer", daemon=True)

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
                    self._table.add(note)
        for stream in list(self.streams.values()):
            with contextlib.suppress(Exception):
                self._table.finish(stream, "error")

    def _round(self) -> None:
        """Serve all streams that can be served now."""
        self._rung = False
        announced = self.announced
        self._take_notes()
        busy = self._table.ready or self._news or self._direct
        timeout = 0.0 if busy else max(0.0, self._table.timers.next_tick - time.monotonic())
        for number, is_gone in self._poller.wait(timeout):
            if (stream := self._table.by_number.get(number)) is not None:
                self._on_event(stream, is_gone)
        if time.monotonic() >= self._table.timers.next_tick:
            self._tick()
        self._send()
        self.served = announced

    def _send(self) -> None:
        """Send what the notes and events of this round have made due."""
        direct, self._direct = self._direct, {}
        for stream, entries in direct.items():
            self._sender.send_direct(stream, entries)
            self._switch.served(1)
        news, self._news = self._news, {}
        for group in news:
            if group.streams and self._group_sender.send(group, self._ends):
                self._news[group] = None
        for stream in self._table.take_ready():
            self._sender.serve(stream)
            self._switch.served(1)

    def _take_notes(self) -> None:
        notes = self._notes
        while notes:
            note = notes.popleft()
            if isinstance(note, Connection):
                if (stream := self.streams.get(note)) is not None:
                    self._table.make_ready(stream)
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
            is_mixed = stream.reader.invalid or len(connection.partitions) > 1
            if is_mixed or self._groups.of_stream(stream) in self._news:
                self._table.make_ready(stream)
            else:
                self._direct.setdefault(stream, []).append(entry)

    def _adopt(self, stream: Stream) -> None:
        self._table.add(stream)
        try:
            self._poller.add(stream.number)
        except OSError as error:  # the kernel's limit of watched descriptors is reached
            logger.error("a stream cannot be watched: %s", error)
            return self._table.finish(stream, "error")
        self._table.set_timer(stream)
        self._sender.flush(stream)
        if stream.connection in self.streams and stream.rest is not None:
            self._table.wait_writable(stream)
        return None

    def look_at_all(self, partition: int) -> None:
        """Serve each stream that reads a partition by itself."""
        self._ends.pop(partition, None)
        for stream in self.streams.values():
            if partition in stream.connection.partitions:
                self._table.make_ready(stream)

    def cut(self, connections: Iterable[Connection]) -> None:
        """End streams at once."""
        for connection in connections:
            if (stream := self.streams.get(connection)) is not None:
                self._table.finish(stream, "stalled")

    def _on_event(self, stream: Stream, is_gone: bool) -> None:
        if is_gone:
            self._table.finish(stream, "hang-up")
        elif stream.rest is not None:
            self._sender.flush(stream)

    def _tick(self) -> None:
        with contextlib.suppress(Exception):  # an error in the periodic work must not end the writer
            self._look()
        for stream in self._table.timers.expired(time.monotonic()):
            self._on_timer(stream, time.monotonic())
            self._switch.served(1)

    def _on_timer(self, stream: Stream, now: float) -> None:
        if stream.rest is not None:
            if now >= stream.rest_since + self._settings.stall_timeout:
                return self._table.finish(stream, "stalled")
        elif sockets.unanswered(stream.sock) > 2 * self._settings.heartbeat:
            return self._table.finish(stream, "hang-up")
        elif now >= stream.expires:
            stream.connection.close("max_age")
        elif now >= stream.written + stream.beat and not stream.hooking:
            self._sender.serve(stream)
            if stream.connection not in self.streams:
                return None
            if not stream.busy and now >= stream.written + stream.beat:
                self._sender.heartbeat(stream)
                if stream.connection not in self.streams:
                    return None
        return self._table.timers.set(stream, max(now + self._settings.tick, self._table.due(stream)))

    def _forget(self) -> None:
        """Count a stream that was removed."""
        with self._lock:
            self.expected -= 1
