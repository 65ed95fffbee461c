"""Message: the allowed fields, and the encoded bytes."""

from __future__ import annotations

import copy
import enum
import json
import math
import pickle
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssehub.events import Message
from ssehub.events.message import MAX_RETRY, Received
from tests.decoding import decode_every_way

texts = st.text(st.characters(codec="utf-8"))
lines = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))
#: Texts that try to inject other fields.
hostile = st.lists(
    st.sampled_from(
        ["\n", "\r", "\r\n", "\n\n", "data: x", "event: e", "id: 9", "retry: 1", ":", " ", "\0", "\ufeff", "é"]
    )
).map("".join)


class Kind(str, enum.Enum):
    """An enumeration of event types, as applications use it. Some Python versions format it as ``Kind.TICK``."""

    TICK = "tick"


def only(message: Message) -> Message:
    """Encode a message, and return the one message that a receiver decodes."""
    (received,) = decode_every_way(message.encode(), times=3)[0]
    return received


def by_lines(text: str) -> str:
    """Return the text as it arrives: each line break is a line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Message("x"), b"data: x\n\n"),
        (Message(""), b"data: \n\n"),
        (Message(" x "), b"data:  x \n\n"),
        (Message("a\nb\r\nc\rd"), b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (Message("a\n"), b"data: a\ndata: \n\n"),
        (Message("a\u2028b\x0b\x0c\x85c"), "data: a\u2028b\x0b\x0c\x85c\n\n".encode()),
        (Message("x", "tick"), b"event: tick\ndata: x\n\n"),
        (Message("x", Kind.TICK), b"event: tick\ndata: x\n\n"),
        (Message("x", id="7"), b"id: 7\ndata: x\n\n"),
        (Message(id=""), b"id: \n\n"),
        (Message(retry=0), b"retry: 0\n\n"),
        (Message(comment=""), b": \n\n"),
        (Message(comment="a\rb"), b": a\n: b\n\n"),
        (Message("x", "e", id="i", retry=5, comment="c"), b": c\nevent: e\nid: i\nretry: 5\ndata: x\n\n"),
        (Message("жé漢😀"), "data: жé漢😀\n\n".encode()),
    ],
    ids=repr,
)
def test_a_message_is_encoded_to_exactly_these_bytes(message: Message, expected: bytes) -> None:
    assert message.encode() == expected


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({}, ValueError, "nothing"),
        ({"event": "tick"}, ValueError, "never dispatched"),
        ({"event": "tick", "id": "1"}, ValueError, "never dispatched"),
        ({"data": "x", "event": ""}, ValueError, "empty"),
        ({"data": "x", "event": "a\nb"}, ValueError, "event has a line break"),
        ({"data": "x", "event": "a\rb"}, ValueError, "event has a line break"),
        ({"data": "x", "event": None}, TypeError, "event must be a str, not NoneType"),
        ({"data": "x", "id": "a\nb"}, ValueError, "id has a line break"),
        ({"data": "x", "id": "a\r"}, ValueError, "id has a line break"),
        ({"data": "x", "id": "a\0"}, ValueError, "NUL"),
        ({"data": "x", "id": 7}, TypeError, "id must be a str, not int"),
        ({"data": "x", "retry": -1}, ValueError, "negative"),
        ({"data": "x", "retry": MAX_RETRY + 1}, ValueError, "more than"),
        ({"data": "x", "retry": 10**5000}, ValueError, "more than"),
        ({"data": "x", "retry": True}, TypeError, "retry must be an int"),
        ({"data": "x", "retry": 2.0}, TypeError, "retry must be an int"),
        ({"data": "x", "retry": "5"}, TypeError, "retry must be an int"),
        ({"data": "x", "comment": b"x"}, TypeError, "comment must be a str, not bytes"),
        ({"data": b"x"}, TypeError, "Message.from_json"),
        ({"data": {"a": 1}}, TypeError, "Message.from_json"),
        ({"data": 7}, TypeError, "Message.from_json"),
        ({"data": "a\ud800"}, ValueError, "data has half of a surrogate pair at 1"),
        ({"data": "x", "event": "\udc00"}, ValueError, "event has half"),
        ({"data": "x", "id": "\ud83d"}, ValueError, "id has half"),
        ({"comment": "\udfff"}, ValueError, "comment has half"),
    ],
)
def test_making_a_message_that_cannot_be_sent_raises_an_error(fields: dict[str, Any], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        Message(**fields)


@pytest.mark.parametrize("field", ["data", "event", "id", "retry", "comment"])
def test_a_message_is_immutable(field: str) -> None:
    for message in (Message("x"), only(Message("x"))):
        with pytest.raises(AttributeError):
            setattr(message, field, "y")
        with pytest.raises(AttributeError):
            message.colour = "red"  # type: ignore[attr-defined]


def test_a_subclass_of_str_or_int_is_stored_as_a_plain_value() -> None:
    class Five(enum.IntEnum):
        FIVE = 5

    message = Message(Kind.TICK, Kind.TICK, id=Kind.TICK, retry=Five.FIVE, comment=Kind.TICK)
    assert [type(value) for value in message._fields()] == [str, str, str, int, str]
    assert message.encode() == b": tick\nevent: tick\nid: tick\nretry: 5\ndata: tick\n\n"


def test_a_str_that_hides_its_line_breaks_cannot_inject_fields() -> None:
    class Sly(str):
        def __contains__(self, other: object) -> bool:
            return False

        def __str__(self) -> str:
            return "x"

        def __format__(self, spec: str) -> str:
            return "x\ndata: evil"

    with pytest.raises(ValueError, match="line break"):
        Message("x", Sly("a\nb"))
    assert Message(Sly("a\nb"), Sly("c")).encode() == b"event: c\ndata: a\ndata: b\n\n"


def test_messages_with_equal_fields_are_equal() -> None:
    assert Message("x", "tick", id="7") == Message("x", "tick", id="7") == only(Message("x", "tick", id="7"))
    assert hash(Message("x", id="7")) == hash(only(Message("x", id="7")))
    assert Message("x") != Message("x", id="") and Message("x") != "x" and Message("") != Message(retry=1)
    assert len({Message("x"), Message("x"), Message("y")}) == 2


def test_the_repr_can_be_evaluated() -> None:
    message = Message("x\n", "tick", id="7", retry=5, comment="c")
    assert repr(message) == r"Message(data='x\n', event='tick', id='7', retry=5, comment='c')"
    assert eval(repr(message)) == message


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_messages_can_be_pickled_and_copied(protocol: int) -> None:
    for message in (Message("x", "tick", id="7", retry=5, comment="c"), Received("x", "message", "")):
        again = pickle.loads(pickle.dumps(message, protocol))
        assert again == message == copy.deepcopy(message) and type(again) is type(message)


def test_json_is_compact_and_keeps_its_characters() -> None:
    message = Message.from_json({"ä": [1, None, "\u2028\n"]}, "tick", id="7")
    assert message == Message('{"ä":[1,null,"\u2028\\n"]}', "tick", id="7")
    assert message.json() == only(message).json() == {"ä": [1, None, "\u2028\n"]}
    assert Message.from_json(None).data == "null"


@pytest.mark.parametrize("value", [math.nan, math.inf, {"x": -math.inf}, "\ud800"])
def test_values_that_browsers_cannot_parse_as_json_are_rejected(value: Any) -> None:
    with pytest.raises(ValueError, match=r"JSON compliant|surrogate"):
        Message.from_json(value)


def test_an_object_that_json_cannot_encode_raises_a_type_error() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        Message.from_json({1, 2})
    with pytest.raises(TypeError, match="bytes is not JSON serializable: decode it"):
        Message.from_json({"a": b"x"})


@pytest.mark.parametrize("value", [datetime(2026, 1, 2, 3, 4, 5), Decimal("1.50"), UUID(int=7)], ids=repr)
def test_default_encodes_objects_that_json_cannot_encode(value: Any) -> None:
    assert Message.from_json({"it": value}, default=str).json() == {"it": str(value)}
    assert Message.from_json([value], "tick", id="7", default=lambda _: [1]) == Message("[[1]]", "tick", id="7")
    with pytest.raises(TypeError, match=f"{type(value).__name__} is not JSON serializable.*default=str"):
        Message.from_json([value])


def test_json_of_a_message_without_valid_json_raises_a_value_error() -> None:
    with pytest.raises(ValueError, match="no data"):
        Message(comment="x").json()
    with pytest.raises(json.JSONDecodeError):
        Message("{").json()


@settings(deadline=None)
@given(data=texts | hostile, event=lines.filter(bool), id=lines.filter(lambda id: "\0" not in id))
def test_a_message_arrives_as_it_was_sent_except_for_line_breaks(data: str, event: str, id: str) -> None:
    received = only(Message(data, event, id=id))
    assert received.data == by_lines(data)
    assert (received.event, received.id) == (event, id)


@settings(deadline=None)
@given(
    data=st.none() | texts | hostile,
    id=st.none() | texts | hostile,
    comment=st.none() | texts | hostile,
    event=st.just("message") | texts | hostile,
    retry=st.none() | st.integers(0, MAX_RETRY),
)
def test_no_message_encodes_to_a_second_event_or_another_field(
    data: str | None, id: str | None, comment: str | None, event: str, retry: int | None
) -> None:
    try:
        message = Message(data, event, id=id, retry=retry, comment=comment)
    except ValueError:
        return
    sent = {"data": data, "id": id, "retry": retry, "": comment, "event": event if event != "message" else None}
    wire = message.encode().decode()
    assert wire.endswith("\n\n") and wire.index("\n\n") == len(wire) - 2 and "\r" not in wire
    assert {line.partition(": ")[0] for line in wire[:-2].split("\n")} == {k for k, v in sent.items() if v is not None}
    outcome = decode_every_way(wire.encode() + b"data: next\n\n", last_event_id="before", times=3)
    now = "before" if id is None else id
    own = [] if data is None else [Message(by_lines(data), event, id=now)]
    comments = [] if comment is None else [(0, line) for line in by_lines(comment).split("\n")]
    assert outcome == ([*own, Message("next", id=now)], now, retry, comments, False)


@settings(deadline=None)
@given(data=texts | hostile, event=lines.filter(bool), id=lines.filter(lambda id: "\0" not in id))
def test_a_received_message_can_be_sent_on_unchanged(data: str, event: str, id: str) -> None:
    received = only(Message(data, event, id=id))
    assert only(received) == received == Message(received.data, event, id=id)
