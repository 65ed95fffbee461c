"""Decoder: turns the bytes of an event stream into messages.

There are two implementations of the same rules. The interpreter, which the decoder inherits, goes through the lines one
by one, as the specification describes it. The decoder recognizes the usual events, whole blocks of lines in the usual
order, and decodes them several times faster. It passes all other lines to ``_lines``, the interpreter's entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ssehub.events.interpreter import Interpreter
from ssehub.events.line_buffer import LineBuffer, field_name
from ssehub.events.message import Received
from ssehub.exceptions import EventTooLarge

#: If there is no line break within this many characters after the middle of a text, its lines count as long.
_SHORT = 1024


class Decoder(Interpreter):
    """Decodes one event stream. Use one decoder for each response, and only in one thread.

    You can split the stream into chunks at any byte. The time taken is proportional to the number of bytes, however
    they are split. Specification: https://html.spec.whatwg.org/multipage/server-sent-events.html section 9.2.6

    :param last_event_id: the last event id of the connection before.
    :param max_event_size: the limit for the data of one event, in characters, and for the value of one line, in bytes.
    :param comments: whether a comment is also returned, as a plain :class:`Message` that has only a ``comment``.
    :param skip: what to do with an event that is larger than ``max_event_size``. False: raise an error; the decoder
        cannot be used any further. True: skip the event, and return an event ``ssehub.gap`` with its id and the reason
        ``too_large`` instead. Other lines that are too long, such as comments, are then ignored.
    :raises ValueError: if ``max_event_size`` is not positive.
    """

    def __init__(
        self, last_event_id: str = "", *, max_event_size: int = 1 << 20, comments: bool = False, skip: bool = False
    ) -> None:
        if max_event_size < 1:
            raise ValueError(f"max_event_size must be at least 1, not {max_event_size}")
        super().__init__(last_event_id, max_event_size, comments, skip)
        self._buffer = LineBuffer(max_event_size + len("data: "))
        self._error: EventTooLarge | None = None
        # Whether the next byte begins a block, and all buffers are empty.
        self._fresh = False

    @property
    def last_event_id(self) -> str:
        """The id to send as ``Last-Event-ID`` if the connection is lost now."""
        return self._last_event_id

    @property
    def reconnection_time(self) -> int | None:
        """The reconnection time that the stream has set, in milliseconds, or None; at most ``MAX_RETRY``."""
        return self._retry

    @property
    def skipped(self) -> int:
        """The number of events that were skipped because they were too large."""
        return self._skipped

    @property
    def is_skipping(self) -> bool:
        """Whether the current event, or the current line, is too large."""
        return self._is_skipped or self._buffer.is_cut

    @property
    def error(self) -> EventTooLarge | None:
        """The error that the next call of :meth:`feed` raises, or None."""
        return self._error

    def feed(self, chunk: bytes) -> list[Received]:
        """Decode the next bytes, and return the messages that they complete. Never blocks.

        :param chunk: bytes, a bytearray or a memoryview, which may be empty.
        :returns: the messages, oldest first.
        :raises TypeError: if the chunk is something else.
        :raises EventTooLarge: if an event is larger than ``max_event_size``, and ``skip`` is False. If there are
            complete messages before this event, they are returned first, and the next call raises. All later calls
            raise, too.
        """
        if chunk.__class__ is not bytes:
            chunk = bytes(memoryview(chunk))
        if self._fresh and len(chunk) <= self._limit:
            # One whole event, or several: servers that flush after each event send such chunks.
            text = chunk.decode("utf-8", "replace")
            line, _, rest = text.partition("\n")
            data = line.removeprefix("data: ")
            if rest == "\n" and data != line and "\r" not in data:
                return [Received(data, "message", self._id)]
            if "\r" in text:
                if rest == "\r\n" and data != line and data.find("\r") == len(data) - 1:
                    return [Received(data[:-1], "message", self._id)]
                text = text.replace("\r\n", "\n")
                line, _, rest = text.partition("\n")
            if text[-2:] == "\n\n" and "\r" not in text:
                if message := self._one_event(line, rest):
                    return [message]
                return self._whole_blocks(text)
        if self._error:
            raise self._error.with_traceback(None)
        messages: list[Received] = []
        buffer = self._buffer
        if buffer.pieces and buffer.began and 10 not in chunk and 13 not in chunk:
            buffer.hold(chunk)  # the middle of a long line
            chunk = b""
        if chunk or buffer.is_too_long:
            self._feed(chunk, messages)
        return messages if messages or not self._error else self.feed(b"")

    def _one_event(self, line: str, rest: str) -> Received | None:
        """Decode a block of at most a type, at most an id, and one line of data. Return None for any other text."""
        event = "message"
        value = line.removeprefix("event: ")
        if value != line:
            event = value or event
            line, _, rest = rest.partition("\n")
        id = line.removeprefix("id: ")
        if id == line:
            id = self._id
        else:
            line, _, rest = rest.partition("\n")
        data = line.removeprefix("data: ")
        if rest != "\n" or data == line or "\0" in id:
            return None
        self._id = self._last_event_id = id
        return Received(data, event, id)

    def _whole_blocks(self, text: str) -> list[Received]:
        """Decode whole blocks, while all buffers are empty."""
        messages: list[Received] = []
        if len(text) < _SHORT:
            self._blocks(text[:-2], messages)
        else:
            self._interpret(text, messages)
        return messages

    def _feed(self, chunk: bytes, messages: list[Received]) -> None:
        """Decode bytes in any state. An error is stored, not raised."""
        self._fresh = False
        buffer = self._buffer
        try:
            was_cut = buffer.is_cut
            whole = buffer.take(chunk)
            if whole and was_cut:
                start, _, whole = whole.partition(b"\n")
                self._long_line(start)
            while (place := buffer.find_too_long(whole)) is not None:
                begin, end = place
                self._take_lines(whole[:begin], messages)
                self._long_line(whole[begin:end])
                whole = whole[end + 1 :]
            self._take_lines(whole, messages)
            if buffer.is_too_long:
                if not self._skip:
                    raise self._too_large()
                buffer.cut()
        except EventTooLarge as error:
            self._error = error
        open_block = self._data or self._type or self._is_skipped or self._id is not self._last_event_id
        self._fresh = buffer.began and not (open_block or buffer.pieces or buffer.after_cr or self._error)

    def _take_lines(self, whole: bytes, messages: list[Received]) -> None:
        """Decode whole lines. None of them is too long."""
        # "Streams must be decoded using the UTF-8 decode algorithm": malformed bytes become U+FFFD. Line breaks are
        # never part of a longer character, so decoding whole lines gives the same result as decoding the stream.
        if text := whole.decode("utf-8", "replace"):
            interpret = self._interpret if self._size + len(whole) <= self._limit else self._lines
            interpret(text, messages)

    def _long_line(self, line: bytes) -> None:
        """Raise an error for a line that is too long, or skip its event."""
        if not self._skip:
            raise self._too_large()
        if field_name(line) in (b"data", b"event", b"id"):
            self._leave_out()

    def _interpret(self, text: str, messages: list[Received]) -> None:
        """Decode whole lines that are together within the limit."""
        middle = len(text) >> 1
        if text.find("\n", middle, middle + _SHORT) < 0:
            # For long lines, splitting takes several times longer than searching for one line break after another.
            return self._lines(text, messages)
        if not self._fresh:
            # Finish the block that began in an earlier chunk.
            first, found, text = text.partition("\n\n")
            self._lines(first + found, messages)
        blocks, found, rest = text.rpartition("\n\n")
        if found:
            self._blocks(blocks, messages)
        if rest:
            self._lines(rest, messages)

    def _blocks(self, text: str, messages: list[Received]) -> None:
        """Decode whole blocks. Splitting at the name of the first field saves two slices for each block."""
        if text[:6] == "data: ":
            for data in text[6:].split("\n\ndata: "):
                lines = data.split("\ndata: ") if "\n" in data else None
                if lines and data.count("\n") >= len(lines):
                    self._other_blocks("data: " + data, messages)
                else:
                    messages.append(Received("\n".join(lines) if lines else data, "message", self._id))
        elif text[:4] == "id: ":
            for piece in text[4:].split("\n\nid: "):
                id, found, data = piece.partition("\ndata: ")
                if found and "\n" not in data and "\n" not in id and "\0" not in id:
                    self._id = self._last_event_id = id
                    messages.append(Received(data, "message", id))
                else:
                    self._other_blocks("id: " + piece, messages)
        elif text[:7] == "event: ":
            self._typed_blocks(text[7:], messages)
        else:
            self._other_blocks(text, messages)

    def _typed_blocks(self, text: str, messages: list[Received]) -> None:
        """Decode whole blocks that begin with a type. The text begins after the name of the first field."""
        for piece in text.split("\n\nevent: "):
            head, found, data = piece.partition("\ndata: ")
            event, _, id = head.partition("\nid: ")
            if not found or "\n" in data or "\n" in event or "\n" in id or "\0" in id:
                self._other_blocks("event: " + piece, messages)
                continue
            if len(event) < len(head):
                self._id = self._last_event_id = id
            messages.append(Received(data, event or "message", self._id))

    def _other_blocks(self, text: str, messages: list[Received]) -> None:
        """Decode whole blocks: quickly if a block is types, ids and one last line of data, or else line by line."""
        for block in text.split("\n\n"):
            head, found, data = block.partition("\ndata: ")
            id = self._id
            event = "message"
            for line in head.split("\n"):
                if line[:7] == "event: ":
                    event = line[7:] or "message"
                elif line[:4] == "id: " and "\0" not in line:
                    id = line[4:]
                else:
                    found = ""
            if found and "\n" not in data:
                self._id = self._last_event_id = id
                messages.append(Received(data, event, id))
            else:
                self._lines(block + "\n\n", messages)


def decode(chunks: Iterable[bytes], *, last_event_id: str = "", max_event_size: int = 1 << 20) -> Iterator[Received]:
    """Yield the messages of one event stream. An incomplete event at the end is dropped, as the specification demands.

    :param chunks: the bytes of the stream, split anywhere.
    :param last_event_id: the last event id of the connection before.
    :param max_event_size: as for :class:`Decoder`.
    :returns: an iterator of messages. Each is yielded as soon as it is complete.
    :raises EventTooLarge: if an event is larger than ``max_event_size``; the messages before it are yielded first.
    """
    decoder = Decoder(last_event_id, max_event_size=max_event_size)
    for chunk in chunks:
        yield from decoder.feed(chunk)
    # "Once the end of the file is reached, any pending data must be discarded." But a stored error must be raised.
    yield from decoder.feed(b"")
