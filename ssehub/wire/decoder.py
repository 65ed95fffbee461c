"""Decoder: bytes of an event stream in, messages out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ssehub.exceptions import EventTooLarge
from ssehub.wire.message import Message, Received

_BOM = b"\xef\xbb\xbf"
#: The longest reconnection time that is kept, in milliseconds; a stream may send thousands of digits.
MAX_RETRY = 10**12


class Decoder:
    """Read one event stream, in pieces cut anywhere. It belongs to one thread and to one response.

    It follows https://html.spec.whatwg.org/multipage/server-sent-events.html section 9.2.6, and takes time in
    proportion to the bytes, whatever their cut.

    :param last_event_id: the id to begin with, that of the connection before.
    :param max_event_size: what an event's data, or a line of it that has not ended, may come to: characters, and for
        the line bytes.
    :param on_comment: called with the text of each comment as its line ends.
    :raises ValueError: if ``max_event_size`` is not positive.
    """

    def __init__(
        self,
        last_event_id: str = "",
        *,
        max_event_size: int = 1 << 20,
        on_comment: Callable[[str], object] | None = None,
    ) -> None:
        if max_event_size < 1:
            raise ValueError(f"max_event_size must be at least 1, not {max_event_size}")
        self._limit = max_event_size
        self._on_comment = on_comment
        self._last_event_id = last_event_id
        self._retry: int | None = None
        self._error: EventTooLarge | None = None
        # The line that has not ended, in pieces: joining them at each chunk would take quadratic time.
        self._pieces: list[bytes] = []
        self._held = 0
        self._began = False
        self._after_cr = False
        # The specification's buffers.
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
        """The reconnection time the stream has asked for, in milliseconds, or None."""
        return self._retry

    def feed(self, chunk: bytes) -> list[Message]:
        """Take the next bytes and return the messages they complete.

        :raises EventTooLarge: if an event is longer than ``max_event_size``. Messages that were complete before it are
            returned first, and the next call raises. The decoder is of no more use then.
        """
        if self._error:
            raise self._error
        messages: list[Message] = []
        try:
            text = self._complete_lines(chunk)
            if text:
                self._interpret(text, messages)
            if self._held > self._limit:
                raise EventTooLarge(f"a line is longer than max_event_size, {self._limit} bytes")
        except EventTooLarge as error:
            self._error = error
            if not messages:
                raise
        return messages

    def _complete_lines(self, chunk: bytes) -> str:
        """Return the lines that end in this chunk, each ended by a line feed; keep the rest."""
        if self._after_cr and chunk:
            # The second half of a CRLF pair: the first half has ended the line already.
            self._after_cr = False
            if chunk[0] == 10:
                chunk = chunk[1:]
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        if not end:
            self._hold(chunk)
            return ""
        whole = chunk[:end]
        if self._pieces:
            self._pieces.append(whole)
            whole = b"".join(self._pieces)
            self._pieces = []
        self._held = 0
        self._hold(chunk[end:])
        self._after_cr = end == len(chunk) and whole.endswith(b"\r")
        if not self._began:
            # "one leading U+FEFF BYTE ORDER MARK character must be ignored if any are present"
            self._began = True
            whole = whole.removeprefix(_BOM)
        # "Streams must be decoded using the UTF-8 decode algorithm": what is malformed becomes U+FFFD. No line break
        # is part of a longer character, so decoding line by line gives the same.
        text = whole.decode("utf-8", "replace")
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text

    def _hold(self, rest: bytes) -> None:
        if rest:
            self._pieces.append(rest)
            self._held += len(rest)

    def _interpret(self, text: str, messages: list[Message]) -> None:
        """Go through whole lines."""
        start = 0
        stop = len(text)
        while start < stop:
            # Found one by one: a search for a single character is many times faster than a split of long lines.
            end = text.find("\n", start)
            if end == start:
                self._dispatch(messages)
            elif text.startswith("data: ", start):
                self._append(text[start + 6 : end])
            else:
                self._line(text[start:end])
            start = end + 1

    def _append(self, value: str) -> None:
        # "Append the field value to the data buffer, then append a single U+000A LINE FEED (LF) character to the data
        # buffer." The line feeds are put between the lines at the dispatch, which drops the last one anyway.
        self._data.append(value)
        self._size += len(value) + 1
        if self._size > self._limit + 1:
            raise EventTooLarge(f"an event's data is longer than max_event_size, {self._limit} characters")

    def _line(self, line: str) -> None:
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
            # "If the field value does not contain U+0000 NULL, then set the last event ID buffer to the field value."
            if "\0" not in value:
                self._id = value
        elif field == "retry":
            # "If the field value consists of only ASCII digits": int() alone would take "+5", " 5", "1_0" and others.
            if value.isascii() and value.isdigit():
                self._retry = min(int(value.lstrip("0")[:20] or "0"), MAX_RETRY)
        elif not field and self._on_comment:
            # "If the line starts with a U+003A COLON character (:), ignore the line."
            self._on_comment(value)

    def _dispatch(self, messages: list[Message]) -> None:
        # "Set the last event ID string of the event source to the value of the last event ID buffer." This comes
        # first: a block without data moves the id too.
        self._last_event_id = self._id
        data = self._data
        if data:
            # "If the data buffer is an empty string, [...] return." So there is data, be it an empty line.
            text = data[0] if len(data) == 1 else "\n".join(data)
            messages.append(Received(text, self._type or "message", self._id))
            self._data = []
            self._size = 0
        self._type = ""


def decode(chunks: Iterable[bytes], *, last_event_id: str = "", max_event_size: int = 1 << 20) -> Iterator[Message]:
    """Yield the messages of one event stream. What is unfinished at its end is dropped, as it should be.

    :param chunks: the bytes, cut anywhere.
    :raises EventTooLarge: if an event is longer than ``max_event_size``.
    """
    decoder = Decoder(last_event_id, max_event_size=max_event_size)
    for chunk in chunks:
        yield from decoder.feed(chunk)
    yield from decoder.feed(b"")
