"""Message: one event, to be sent or received."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

# "Lines must be separated by either a U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF) character pair, a single
# U+000A LINE FEED (LF) character, or a single U+000D CARRIAGE RETURN (CR) character." (WHATWG HTML 9.2.5)
LINE_BREAK = re.compile("\r\n|\n|\r")
#: The longest reconnection time, in milliseconds (some 30 years). A stream may send thousands of digits, and timers do
#: not accept such a number.
MAX_RETRY = 10**12


class Markup(Protocol):
    """An object that is HTML: a ``Markup`` of markupsafe, a ``SafeString`` of Django, an element of a library."""

    def __html__(self) -> str:
        """Return the HTML."""


class Message:
    """The fields of one event. Immutable, so threads may share it.

    :meth:`encode` writes the fields of a message that you send. A message that you receive is a :class:`Received`;
    the :class:`Decoder` has the stream's reconnection time.

    Specification of the format: https://html.spec.whatwg.org/multipage/server-sent-events.html

    :param data: the text. Each line break in it arrives as a line feed. ``""`` is an event without text. None leaves
        the field out; then the receiver's event handlers are not called.
    :param event: the event type.
    :param id: the event id. If it is None, the log assigns one. The client sends the id back in a request header, so an
        id that is sent has 1 to 255 characters, no control characters, and no blanks at either end.
    :param retry: milliseconds that the receiver waits before it reconnects. In a message that is sent, a day at most.
    :param comment: text that the receiver ignores. It may contain line breaks.
    :raises TypeError: if a field has the wrong type.
    :raises ValueError: if a field has a value that cannot be sent, or no field is given.
    """

    __slots__ = ("_comment", "_data", "_event", "_id", "_retry")

    def __init__(
        self,
        data: str | None = None,
        event: str = "message",
        *,
        id: str | None = None,
        retry: int | None = None,
        comment: str | None = None,
    ) -> None:
        text = None if data is None else _text("data", data, "; for anything else there is Message.from_json")
        self._event = _type(event, text)
        self._id = None if id is None else _id(id)
        self._retry = None if retry is None else _milliseconds(retry)
        self._comment = None if comment is None else _text("comment", comment)
        self._data = text
        if text is None and id is None and retry is None and comment is None:
            raise ValueError("the message has nothing in it: no data, id, retry or comment")

    @property
    def data(self) -> str | None:
        """The text, or None."""
        return self._data

    @property
    def event(self) -> str:
        """The event's type."""
        return self._event

    @property
    def id(self) -> str | None:
        """The event id, or None. For a received message, see :class:`Received`."""
        return self._id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds, or None."""
        return self._retry

    @property
    def comment(self) -> str | None:
        """The comment, or None."""
        return self._comment

    @classmethod
    def from_json(
        cls,
        value: Any,
        event: str = "message",
        *,
        id: str | None = None,
        default: Callable[[Any], Any] | None = None,
    ) -> Message:
        """Return a message whose data is a value encoded as JSON, in compact form and without ``\\u`` escapes.

        :param default: the ``default`` of ``json.dumps``: called with each object that JSON cannot encode, such as a
            ``datetime`` or a ``Decimal``; returns a value to encode instead. ``default=str`` encodes the object's text.
        :raises TypeError: if the value contains an object that JSON cannot encode.
        :raises ValueError: if the value contains a NaN or an infinity, which browsers cannot parse, or half of a
            surrogate pair.
        """
        data = json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=default or _not_json
        )
        return cls(data, event, id=id)

    @classmethod
    def html(cls, html: str | Markup, event: str = "message", *, id: str | None = None) -> Message:
        """Return a message whose data is a fragment of HTML, for pages that insert what they receive.

        Nothing is escaped here, and a page runs the scripts of what it inserts. So take the HTML from a template that
        escapes the values in it. The functions of :mod:`ssehub.html` make the events of htmx, Turbo and Datastar.

        :param html: the HTML. Of an object with a method ``__html__``, what this returns.
        :raises TypeError: if it is neither a text nor such an object.
        """
        rendered = html.__html__() if hasattr(html, "__html__") else html
        return cls(_text("html", rendered), event, id=id)

    def json(self) -> Any:
        """Decode the data as JSON.

        :raises ValueError: if the data is not JSON, is nested too deeply, or is None.
        """
        if self._data is None:
            raise ValueError("the message has no data")
        try:
            return json.loads(self._data)
        except RecursionError as error:
            raise ValueError("the data is nested too deeply") from error

    def encode(self) -> bytes:
        """Return the event as bytes: its fields, with one space after each colon, and the blank line that ends it."""
        lines: list[str] = []
        if self._comment is not None:
            lines += [f": {line}" for line in LINE_BREAK.split(self._comment)]
        if self._event != "message":
            lines.append(f"event: {self._event}")
        if self._id is not None:
            lines.append(f"id: {self._id}")
        if self._retry is not None:
            lines.append(f"retry: {self._retry}")
        if self._data is not None:
            lines += [f"data: {line}" for line in LINE_BREAK.split(self._data)]
        return ("\n".join(lines) + "\n\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """Decode the bytes that :meth:`encode` returned. All fields are restored.

        :raises ValueError: if the bytes are not the result of :meth:`encode`.
        """
        lines: dict[str, list[str]] = {"": [], "event": [], "id": [], "retry": [], "data": []}
        text = data.decode()
        for line in text.removesuffix("\n\n").split("\n"):
            name, _, value = line.partition(": ")
            if name not in lines:
                raise ValueError(f"not an encoded message: {data[:100]!r}")
            lines[name].append(value)
        given = {name: values[0] if values else None for name, values in lines.items()}
        message = cls(
            "\n".join(lines["data"]) if lines["data"] else None,
            given["event"] or "message",
            id=given["id"],
            retry=None if given["retry"] is None else int(given["retry"]),
            comment="\n".join(lines[""]) if lines[""] else None,
        )
        if message.encode() != data:
            raise ValueError(f"not an encoded message: {data[:100]!r}")
        return message

    def _fields(self) -> tuple[str | None, str, str | None, int | None, str | None]:
        return self._data, self._event, self._id, self._retry, self._comment

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, self._fields()

    def __eq__(self, other: object) -> bool:
        return self._fields() == other._fields() if isinstance(other, Message) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        named = zip(("data", "event", "id", "retry", "comment"), self._fields(), strict=True)
        return f"Message({', '.join(f'{name}={value!r}' for name, value in named if value is not None)})"


class Received(Message):
    """A message that was received. Its ``data``, ``event`` and ``id`` are strings, never None.

    ``id`` is the stream's last event id at this event, as the specification defines it: if the event has no id, it is
    that of an earlier event, or ``""``. A :class:`Decoder`, a :class:`~ssehub.Client` and its subscriptions return
    these. You can send a received message on without changes.
    """

    # The fields are not checked, because the decoder makes many of these, and can only make valid ones.
    __slots__ = ()
    if TYPE_CHECKING:

        @property
        def data(self) -> str:
            """The text."""

        @property
        def id(self) -> str:
            """The last event id."""

    # Class attributes, so that making an instance takes two assignments less.
    _retry = None
    _comment = None

    def __init__(self, data: str, event: str, id: str) -> None:
        self._data = data
        self._event = event
        self._id = id

    def __reduce__(self) -> tuple[Any, ...]:
        return Received, (self._data, self._event, self._id)


def _restore(data: str | None, event: str, id: str | None, retry: int | None, comment: str | None) -> Message:
    """Make a message from its pickled fields. ``Message`` itself takes some of them by name only."""
    return Message(data, event, id=id, retry=retry, comment=comment)


def _not_json(value: object) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{type(value).__name__} is not JSON serializable: decode it to text first")
    raise TypeError(
        f"{type(value).__name__} is not JSON serializable: give a function as default=, for instance default=str"
    )


def _text(name: str, value: object, hint: str = "") -> str:
    """Return the value as a plain str. A subclass of str, such as a string enumeration, may format differently."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}{hint}")
    text = str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{name} has half of a surrogate pair at {error.start}, which UTF-8 cannot encode"
            ) from None
    return text


def _line(name: str, value: object) -> str:
    text = _text(name, value)
    if "\n" in text or "\r" in text:
        raise ValueError(f"{name} has a line break, which would start another field: {text!r}")
    return text


def _type(event: object, data: str | None) -> str:
    text = _line("event", event)
    if not text:
        raise ValueError("event is empty; the default type is 'message'")
    if data is None and text != "message":
        # "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty string
        # and return."
        raise ValueError(f"an event {text!r} without data is never dispatched; for an event without text, use data=''")
    return text


def _id(id: object) -> str:
    text = _line("id", id)
    if "\0" in text:
        # "If the field value does not contain U+0000 NULL, then set the last event ID buffer to the field value.
        # Otherwise, ignore the field."
        raise ValueError(f"id has a NUL, and every receiver would ignore it: {text!r}")
    return text


def _milliseconds(retry: object) -> int:
    if not isinstance(retry, int) or isinstance(retry, bool):
        raise TypeError(f"retry must be an int of milliseconds, not {retry!r}")
    if not 0 <= retry <= MAX_RETRY:
        # The value is not shown: Python refuses to format an int of thousands of digits.
        raise ValueError(f"retry must not be negative, nor more than {MAX_RETRY} ms")
    return int.__int__(retry)
