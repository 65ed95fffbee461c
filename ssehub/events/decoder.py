"""Decoder: turns the bytes of an event stream into messages.

There are two implementations of the same rules. ``_lines`` goes through the lines one by one, as the specification
describes it. The other methods recognize the usual events, whole blocks of lines in the usual order, and decode them
several times faster. They pass all other lines to ``_lines``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ssehub.events.message import MAX_RETRY, Message, Received
from ssehub.exceptions import EventTooLarge

_BOM = b"\xef\xbb\xbf"
#: If there is no line break within this many characters after the middle of a text, its lines count as long.
_SHORT = 1024
#: The first bytes of a line, enough to recognize its field: the longest name that matters is "event".
_NAME = 8
#: The data of the ``ssehub.gap`` event that replaces a skipped event. A hub reports lost messages in the same form.
_SKIPPED = '{"reason":"too_large","missed":1}'


class Decoder:
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
        self._limit = max_event_size
        self._line_limit = max_event_size + len("data: ")
        self._comments = comments
        self._skip = skip
        # Whether the current event is being skipped, and whether the current line was cut. Only the first bytes of
        # a cut line are kept.
        self._is_skipped = self._is_cut = False
        self._skipped = 0
        self._last_event_id = last_event_id
        self._retry: int | None = None
        self._error: EventTooLarge | None = None
        # The beginning of the current line, in pieces. To join them at each chunk would take quadratic time.
        self._pieces: list[bytes] = []
        self._held = 0
        self._began = False
        self._after_cr = False
        # Whether the next byte begins a block, and all buffers are empty.
        self._fresh = False
        # The specification's buffers. In the specification the id buffer starts empty. Browsers, and the test
        # format-field-id of web-platform-tests, start it with the id of the connection before.
        self._data: list[str] = []
        self._size = 0
        self._type = ""
        self._id = last_event_id

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
        return self._is_skipped or self._is_cut

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
        if self._pieces and self._began and 10 not in chunk and 13 not in chunk:
            self._hold(chunk)  # the middle of a long line
            chunk = b""
        if chunk or self._held > self._line_limit:
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
        try:
            was_cut = self._is_cut
            whole = self._complete_lines(chunk)
            if whole and was_cut:
                start, _, whole = whole.partition(b"\n")
                self._long_line(start)
            while (place := self._long_line_in(whole)) is not None:
                begin, end = place
                self._take_lines(whole[:begin], messages)
                self._long_line(whole[begin:end])
                whole = whole[end + 1 :]
            self._take_lines(whole, messages)
            self._cut_held_line()
        except EventTooLarge as error:
            self._error = error
        open_block = self._data or self._type or self._is_skipped or self._id is not self._last_event_id
        self._fresh = self._began and not (open_block or self._pieces or self._after_cr or self._error)

    def _take_lines(self, whole: bytes, messages: list[Received]) -> None:
        """Decode whole lines. None of them is too long."""
        # "Streams must be decoded using the UTF-8 decode algorithm": malformed bytes become U+FFFD. Line breaks are
        # never part of a longer character, so decoding whole lines gives the same result as decoding the stream.
        if text := whole.decode("utf-8", "replace"):
            interpret = self._interpret if self._size + len(whole) <= self._limit else self._lines
            interpret(text, messages)

    def _complete_lines(self, chunk: bytes) -> bytes:
        """Return the lines that end in this chunk, each with a line feed at its end. Keep the rest."""
        if self._after_cr and chunk:
            # "A U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF) character pair" is one line end. The CR was the last
            # byte of the chunk before, and has ended the line already.
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if not self._began:
            # "One leading U+FEFF BYTE ORDER MARK character must be ignored if any are present." It does not count
            # towards the limit either.
            chunk = b"".join([*self._pieces, chunk])
            self._pieces, self._held = [], 0
            self._began = len(chunk) >= len(_BOM) or not _BOM.startswith(chunk)
            chunk = chunk.removeprefix(_BOM)
        end = chunk.rfind(b"\n") + 1
        end = chunk.rfind(b"\r", end) + 1 or end
        if not end:
            self._hold(chunk)
            return b""
        self._after_cr = chunk[-1] == 13
        whole = self._with_beginning(chunk[:end])
        self._is_cut = False
        self._hold(chunk[end:])
        return whole

    def _with_beginning(self, lines: bytes) -> bytes:
        """Put the kept beginning before the lines, and replace all line ends with line feeds."""
        if b"\r" in lines:
            lines = lines.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self._pieces:
            lines = b"".join([*self._pieces, lines])
            self._pieces, self._held = [], 0
        return lines

    def _hold(self, rest: bytes) -> None:
        """Keep the beginning of a line."""
        if rest and not self._is_cut:
            self._pieces.append(rest)
            self._held += len(rest)

    def _cut_held_line(self) -> None:
        """Cut the kept beginning of a line, if it is too long, to the bytes that tell its field."""
        if self._held > self._line_limit:
            if not self._skip:
                raise self._too_large()
            start = b"".join(self._pieces)[:_NAME]
            self._pieces, self._held, self._is_cut = [start], len(start), True

    def _long_line_in(self, whole: bytes) -> tuple[int, int] | None:
        """Return where the first line that is too long begins and ends.

        Lines that arrive in one chunk are checked, too: the result must not depend on how the stream is split.
        """
        start = 0
        while len(whole) - start > self._line_limit:
            end = whole.find(b"\n", start)
            if end - start > self._line_limit:
                return start, end
            start = end + 1
        return None

    def _long_line(self, line: bytes) -> None:
        """Raise an error for a line that is too long, or skip its event."""
        if not self._skip:
            raise self._too_large()
        if line[:_NAME].partition(b":")[0] in (b"data", b"event", b"id"):
            self._leave_out()

    def _leave_out(self) -> None:
        """Skip the current event: drop its data, and ignore the rest of it."""
        self._is_skipped = True
        self._data, self._size = [], 0

    def _too_large(self) -> EventTooLarge:
        return EventTooLarge(f"an event, or a line of it, is larger than max_event_size, {self._limit}")

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

    def _lines(self, text: str, messages: list[Received]) -> None:
        """Decode whole lines one by one, as the specification describes it."""
        start = 0
        stop = len(text)
        while start < stop:
            end = text.find("\n", start)
            if end == start:
                # "If the line is empty (a blank line): Dispatch the event."
                self._dispatch(messages)
            elif text.startswith("data: ", start):
                self._append(text[start + 6 : end])
            else:
                self._line(text[start:end], messages)
            start = end + 1

    def _append(self, value: str) -> None:
        # "Append the field value to the data buffer, then append a single U+000A LINE FEED (LF) character to the data
        # buffer." Here the lines are joined with line feeds when the event is dispatched, which drops the last one.
        if self._is_skipped:
            return
        self._data.append(value)
        self._size += len(value) + 1
        if self._size > self._limit + 1:
            if not self._skip:
                raise self._too_large()
            self._leave_out()

    def _line(self, line: str, messages: list[Received]) -> None:
        """Decode a line that is not blank."""
        # "Collect the characters on the line before the first U+003A COLON character (:), and let field be that
        # string. Collect the characters on the line after [it], and let value be that string. If value starts with a
        # U+0020 SPACE character, remove it from value." Without a colon, the whole line is the name, and the value is
        # empty.
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._append(value)
        elif field == "event":
            self._type = value
        elif field == "id":
            # "If the field value does not contain U+0000 NULL, then set the last event ID buffer to the field value.
            # Otherwise, ignore the field."
            if "\0" not in value:
                self._id = value
        elif field == "retry":
            # "If the field value consists of only ASCII digits": int() alone would accept "+5", " 5" and "1_0", and
            # would reject thousands of digits.
            if value.isascii() and value.isdigit():
                self._retry = min(int(value.lstrip("0")[:20] or "0"), MAX_RETRY)
        elif self._comments and line[0] == ":":
            # "If the line starts with a U+003A COLON character (:), ignore the line."
            messages.append(Message(comment=value))  # type: ignore[arg-type]

    def _dispatch(self, messages: list[Received]) -> None:
        # "Set the last event ID string of the event source to the value of the last event ID buffer." This is the first
        # step, so a block without data sets the id, too.
        self._last_event_id = self._id
        # "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty string and
        # return." After an empty line of data, the buffer is not empty: it has a line feed.
        if self._is_skipped:
            messages.append(Received(_SKIPPED, "ssehub.gap", self._id))
            self._is_skipped = False
            self._skipped += 1
        elif self._data:
            messages.append(Received("\n".join(self._data), self._type or "message", self._id))
            self._data = []
            self._size = 0
        self._type = ""


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
