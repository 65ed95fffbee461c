"""Interpreter: turns the lines of an event stream into messages, one by one, as the specification describes it.

Specification: https://html.spec.whatwg.org/multipage/server-sent-events.html section 9.2.6, "Interpreting an event
stream". The lines are text, each with a line feed at its end. Bytes and chunks are the decoder's.
"""

from __future__ import annotations

from ssehub.events.message import MAX_RETRY, Message, Received
from ssehub.exceptions import EventTooLarge

#: The data of the ``ssehub.gap`` event that replaces a skipped event. A hub reports lost messages in the same form.
_SKIPPED = '{"reason":"too_large","missed":1}'


class Interpreter:
    """The specification's buffers, and its rules for a line. Not thread-safe.

    It is the base of :class:`~ssehub.Decoder`, which describes the parameters, and which decodes the usual events
    without going through their lines.
    """

    def __init__(self, last_event_id: str, max_event_size: int, comments: bool, skip: bool) -> None:
        self._limit = max_event_size
        self._comments = comments
        self._skip = skip
        # Whether the current event is being skipped, and the number of events that were.
        self._is_skipped = False
        self._skipped = 0
        self._last_event_id = last_event_id
        self._retry: int | None = None
        # The specification's buffers. In the specification the id buffer starts empty. Browsers, and the test
        # format-field-id of web-platform-tests, start it with the id of the connection before.
        self._data: list[str] = []
        self._size = 0
        self._type = ""
        self._id = last_event_id

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

    def _leave_out(self) -> None:
        """Skip the current event: drop its data, and ignore the rest of it."""
        self._is_skipped = True
        self._data, self._size = [], 0

    def _too_large(self) -> EventTooLarge:
        return EventTooLarge(f"an event, or a line of it, is larger than max_event_size, {self._limit}")
