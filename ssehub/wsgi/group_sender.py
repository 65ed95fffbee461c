"""GroupSender: sends the same bytes to all streams of a group."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence

from ssehub.exceptions import LogError
from ssehub.log import Page, Position
from ssehub.server.dispatcher import Dispatcher
from ssehub.server.page_cache import Chunk, read_chunk
from ssehub.wsgi.greenlets import SERVED, GreenletSwitch
from ssehub.wsgi.groups import Group
from ssehub.wsgi.stream import FLAGS, Stream, frame
from ssehub.wsgi.stream_sender import CHUNKS
from ssehub.wsgi.stream_table import StreamTable


class GroupSender:
    """Serves groups of streams. Only the writer's thread uses it.

    :param dispatcher: the dispatcher of the process.
    :param table: the streams of the writer.
    :param switch: lets other greenlets run.
    """

    def __init__(self, dispatcher: Dispatcher, table: StreamTable, switch: GreenletSwitch) -> None:
        self._counters = dispatcher.counters
        self._table = table
        self._switch = switch

    def send(self, group: Group, ends: Mapping[int, Position]) -> bool:
        """Send a group what the log has for it, as far as the entries whose notes were taken.

        :param ends: the last of these entries in each partition.
        :returns: whether there may be more to send.
        """
        for _ in range(CHUNKS):
            chunk: Chunk | Page | None = None
            with contextlib.suppress(LogError):
                chunk = read_chunk(group.log, group.place, group.interest, group.upto(ends))
            if not isinstance(chunk, Chunk):  # each stream determines by itself whether it has to report a gap
                for stream in group.streams:
                    self._table.make_ready(stream)
                group.restart()
                return False
            if chunk.messages:
                fit, others = group.split(chunk)
                for stream in others:
                    self._table.make_ready(stream)
                self._send_chunk(chunk, fit)
            group.advance(chunk)
            if not chunk.messages:
                return False
        return True

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
            if not count % SERVED:
                self._counters.wrote(whole, chunk.messages, len(data), time.time() - sent if sent else None)
                whole = 0
                self._switch.served(SERVED)
                now = time.monotonic()
        self._counters.wrote(whole, chunk.messages, len(data), time.time() - sent if sent else None)
        self._counters.wrote(len(slow), chunk.messages, len(data), None)
        self._switch.served(len(streams) % SERVED)
        for stream, wire, taken in slow:
            stream.keep_rest(wire, taken, sent)
            self._table.wait_writable(stream)
        for stream in gone:
            self._table.finish(stream, "hang-up")
