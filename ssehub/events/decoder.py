"""Decoder: bytes of an event stream in, messages out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ssehub.events.message import MAX_RETRY, Message, Received
from ssehub.exceptions import EventTooLarge

_BOM = b"\xef\xbb\xbf"
#: How far, in characters, the middle of a text is searched for a line break before its lines count as long.
_SHORT = 1024
#: Bytes of a line that tell whether it is one of an event's fields: the longest name is "event".
_NAME = 8
#: What is told in the place of an event that was left out, as a hub tells of messages that it has lost.
_SKIPPED = '{"reason":"too_large","missed":1}'


class Decoder:
    """Read one event stream, in pieces cut anywhere. It belongs to one thread and to one response.

    It follows https://html.spec.whatwg.org/multipage/server-sent-events.html section 9.2.6, and takes time in
    proportion to the bytes, whatever their cut. Usual events take short ways; ``_lines`` is the specification.

    :param last_event_id: the id to begin with, that of the connection before.
    :param max_event_size: what one event's data may come to, in characters, and one line's value, in bytes. Comments
        do not add up; nor do events.
    :param comments: whether each comment becomes a message as well, a plain :class:`Message` with a ``comment`` and
        nothing else, in the place where its line ends.
    :param skip: what to do with an event that is larger than ``max_event_size``. False ends the decoder with an error.
        True leaves the event out, and returns an event ``ssehub.gap`` in its place, with its id and the reason
        ``too_large``; a line of something else that is too long is ignored.
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
        # Whether the event that has begun is left out, and whether the line that has begun is: only the name of its
        # field is kept.
        self._is_skipped = self._is_cut = False
        self._skipped = 0
        self._last_event_id = last_event_id
        self._retry: int | None = None
        self._error: EventTooLarge | None = None
        # The line that has not ended, in pieces: joining them at each chunk would take quadratic time.
        self._pieces: list[bytes] = []
        self._held = 0
        self._began = False
        self._after_cr = False
        # Whether the next byte begins a block, with nothing left of those before: then whole blocks need no buffers.
        self._fresh = False
        # The specification's buffers. It has the last one start empty, but browsers, and web-platform-tests'
        # format-field-id, let it start as the id carried over.
        self._data: list[str] = []
        self._size = 0
        self._type = ""
        self._id = last_event_id

    @property
    def last_event_id(self) -> str:
        """The id to send as ``Last-Event-ID`` when the connection is lost now."""
        return self._last_event_id

    @property
    def reconnection_time(self) -> int | None:
        """The reconnection time the stream has asked for, in milliseconds, or None; at most ``MAX_RETRY``."""
        return self._retry

    @property
    def skipped(self) -> int:
        """How many events were left out because they were too large."""
        return self._skipped

    @property
    def is_skipping(self) -> bool:
        """Whether the event that has begun is too large."""
        return self._is_skipped or self._is_cut

    @property
    def error(self) -> EventTooLarge | None:
        """What the next :meth:`feed` will raise."""
        return self._error

    def feed(self, chunk: bytes) -> list[Received]:
        """Take the next bytes and return the messages they complete. It never blocks.

        :param chunk: any number of bytes, also none; a memoryview or a bytearray will do.
        :returns: the messages, oldest first.
        :raises TypeError: if it is not made of bytes.
        :raises EventTooLarge: if an event is longer than ``max_event_size``, unless it is skipped. Messages that were
            complete before it are returned first; the next call raises, and so does every other.
        """
        if chunk.__class__ is not bytes:
            chunk = bytes(memoryview(chunk))
        if self._fresh and len(chunk) <= self._limit:
            # One whole event, or several: what a server that flushes sends.
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
        """Take a single block of one line of data after a type, an id, both or neither; or leave it alone."""
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
        """Take whole blocks, after which nothing is kept."""
        messages: list[Received] = []
        if len(text) < _SHORT:
            self._blocks(text[:-2], messages)
        else:
            self._interpret(text, messages)
        return messages

    def _feed(self, chunk: bytes, messages: list[Received]) -> None:
        """Take bytes in any state, and note an error instead of raising it."""
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
        """Take whole lines, none of which is too long."""
        # "Streams must be decoded using the UTF-8 decode algorithm": what is malformed becomes U+FFFD. No line break
        # is part of a longer character, so decoding line by line gives the same.
        if text := whole.decode("utf-8", "replace"):
            interpret = self._interpret if self._size + len(whole) <= self._limit else self._lines
            interpret(text, messages)

    def _complete_lines(self, chunk: bytes) -> bytes:
        """Return the lines that end in this chunk, each ended by a line feed; keep the rest."""
        if self._after_cr and chunk:
            # "A U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF) character pair" is one line end, and its first half,
            # the last byte before this chunk, has ended the line already.
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if not self._began:
            # "One leading U+FEFF BYTE ORDER MARK character must be ignored if any are present." Nor does it count.
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
        """Put what was kept before the lines, and end them alike."""
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
        """Keep no more of a line that is too long than tells which field it is."""
        if self._held > self._line_limit:
            if not self._skip:
                raise self._too_large()
            start = b"".join(self._pieces)[:_NAME]
            self._pieces, self._held, self._is_cut = [start], len(start), True

    def _long_line_in(self, whole: bytes) -> tuple[int, int] | None:
        """Return where the first line that is too long begins and ends: a line's cut must make no difference."""
        start = 0
        while len(whole) - start > self._line_limit:
            end = whole.find(b"\n", start)
            if end - start > self._line_limit:
                return start, end
            start = end + 1
        return None

    def _long_line(self, line: bytes) -> None:
        """Process a line that is too long."""
        if not self._skip:
            raise self._too_large()
        if line[:_NAME].partition(b":")[0] in (b"data", b"event", b"id"):
            self._leave_out()

    def _leave_out(self) -> None:
        """Drop what there is of the event that has begun, and what follows of it."""
        self._is_skipped = True
        self._data, self._size = [], 0

    def _too_large(self) -> EventTooLarge:
        return EventTooLarge(f"an event, or a line of it, is larger than max_event_size, {self._limit}")

    def _interpret(self, text: str, messages: list[Received]) -> None:
        """Go through whole lines that cannot exceed the limit."""
        middle = len(text) >> 1
        if text.find("\n", middle, middle + _SHORT) < 0:
            # Where lines are long, splitting costs several times more than looking for one break after another.
            return self._lines(text, messages)
        if not self._fresh:
            # To the end of the block that began before.
            first, found, text = text.partition("\n\n")
            self._lines(first + found, messages)
        blocks, found, rest = text.rpartition("\n\n")
        if found:
            self._blocks(blocks, messages)
        if rest:
            self._lines(rest, messages)

    def _blocks(self, text: str, messages: list[Received]) -> None:
        """Process whole blocks. Splitting at the name of their first field as well saves two slices for each."""
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
        """Process whole blocks that begin with a type, the name of the first field taken off."""
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
        """Process whole blocks: quickly, if the usual fields are in their usual order, one line of data last."""
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
        """Go through whole lines one by one: the specification as it is written."""
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
        # buffer." The line feeds are put between the lines at the dispatch, which drops the last one anyway.
        if self._is_skipped:
            return
        self._data.append(value)
        self._size += len(value) + 1
        if self._size > self._limit + 1:
            if not self._skip:
                raise self._too_large()
            self._leave_out()

    def _line(self, line: str, messages: list[Received]) -> None:
        """Process a line that is not blank."""
        # "Collect the characters on the line before the first U+003A COLON character (:), and let field be that
        # string. Collect the characters on the line after [it], and let value be that string. If value starts with a
        # U+0020 SPACE character, remove it from value." Without a colon the whole line is the name, the value empty.
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
            # "If the field value consists of only ASCII digits": int() alone would take "+5", " 5", "1_0" and others,
            # and refuse thousands of digits.
            if value.isascii() and value.isdigit():
                self._retry = min(int(value.lstrip("0")[:20] or "0"), MAX_RETRY)
        elif self._comments and line[0] == ":":
            # "If the line starts with a U+003A COLON character (:), ignore the line."
            messages.append(Message(comment=value))  # type: ignore[arg-type]

    def _dispatch(self, messages: list[Received]) -> None:
        # "Set the last event ID string of the event source to the value of the last event ID buffer." This comes
        # first: a block without data moves the id too.
        self._last_event_id = self._id
        # "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty string and
        # return." A line without text is not that: its line feed is in the buffer.
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
    """Yield the messages of one event stream. What is unfinished at its end is dropped, as it should be.

    :param chunks: the bytes, cut anywhere.
    :param last_event_id: the id to begin with, that of the connection before.
    :param max_event_size: as for :class:`Decoder`.
    :returns: the messages, as they are completed.
    :raises EventTooLarge: if an event is longer than ``max_event_size``, after the messages before it.
    """
    decoder = Decoder(last_event_id, max_event_size=max_event_size)
    for chunk in chunks:
        yield from decoder.feed(chunk)
    # "Once the end of the file is reached, any pending data must be discarded." An error that waits must not be.
    yield from decoder.feed(b"")
