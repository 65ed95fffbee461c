"""Decoder: it follows the specification, however the stream is split into chunks."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssehub.events import Decoder, Message, decode
from ssehub.events.message import MAX_RETRY
from ssehub.exceptions import EventTooLarge, SSEHubError
from tests.decoding import Outcome, cuts, decode_every_way

#: Seconds after which a test counts as hanging. It is not used for measurements.
HANG = 30.0
BOM = b"\xef\xbb\xbf"


def events(data: bytes, **options: str) -> list[tuple[str | None, str, str | None]]:
    return [(message.data, message.event, message.id) for message in decode_every_way(data, **options)[0]]  # type: ignore[arg-type]


def naive(data: bytes, last_event_id: str) -> Outcome:
    """Decode a whole stream line by line: a simple and slow implementation of the specification."""
    text = data.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
    messages: list[Message] = []
    comments: list[tuple[int, str]] = []
    retry: int | None = None
    buffer, kind, id, last = "", "", last_event_id, last_event_id
    for line in text.split("\n")[:-1]:
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if line == "":
            last = id
            if buffer:
                messages.append(Message(buffer[:-1], kind or "message", id=last))
            buffer = kind = ""
        elif line.startswith(":"):
            comments.append((len(messages), value))
        elif name == "event":
            kind = value
        elif name == "data":
            buffer += value + "\n"
        elif name == "id" and "\0" not in value:
            id = value
        elif name == "retry" and value and all(c in "0123456789" for c in value):
            retry = min(int(value), MAX_RETRY)
    return messages, last, retry, comments, False


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n\n\n", []),
        (b"data: x\n\n", ["x"]),
        (b"data:x\n\n", ["x"]),
        (b"data:  x \n\n", [" x "]),
        (b"data:\tx\n\n", ["\tx"]),
        (b"data\n\n", [""]),
        (b"data:\n\n", [""]),
        (b"data\ndata\n\n", ["\n"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data: a\ndata: \n\n", ["a\n"]),
        (b"data: a: b\n\n", ["a: b"]),
        (b"data: a\n\n\n\ndata: b\n\n", ["a", "b"]),
        (b"data: a\n\n\ndata: b\n\n", ["a", "b"]),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\n\r\n", ["a", "b", "c"]),
        (b"data: a\r\n\rdata: b\n\n", ["a", "b"]),
        (b"data: a\n\ndata: b\r\n\ndata: c\rdata: d\n\n", ["a", "b", "c\nd"]),
        (b"data: a", []),
        (b"data: a\n", []),
        (b"data: a\n\ndata: b\n", ["a"]),
        (b"Data: a\n data: b\ndata : c\ndat: d\nfield\n\n", []),
        (b"data: a\n:data: b\nfield: c\n\n", ["a"]),
        (BOM + b"data: a\n\n", ["a"]),
        (BOM + BOM + b"data: a\n\n", []),
        (BOM[:2] + b"data: a\n\n", []),
        (b"data: a\n\n" + BOM + b"data: b\n\n", ["a"]),
        (b"data: " + BOM + b"a\n\n", ["\ufeffa"]),
        (b"data: \xff\xc3\n\n", ["\ufffd\ufffd"]),
        (b"data: \xed\xa0\x80 \xf0\x9f\x98\n\n", ["\ufffd\ufffd\ufffd \ufffd"]),
        ("data: a\u2028b\u2029c\x0b\x0c\x1c\x1d\x1e\x85d\n\n".encode(), ["a\u2028b\u2029c\x0b\x0c\x1c\x1d\x1e\x85d"]),
        (b"data: a\0b\n\n", ["a\0b"]),
        (b"id: 1\n\ndata: a\nid: 2\n\n", ["a"]),
        ("data: жé漢😀\n\n".encode() * 3, ["жé漢😀"] * 3),
    ],
)
def test_the_data_of_a_stream_is_decoded(data: bytes, expected: list[str]) -> None:
    assert [message.data for message in decode_every_way(data)[0]] == expected


@pytest.mark.parametrize("cut", range(1, 10))
def test_a_byte_order_mark_in_two_pieces_is_ignored(cut: int) -> None:
    stream = BOM + b"data: a\n\n"
    assert list(decode([stream[:cut], b"", stream[cut:]])) == [Message("a", id="")]


@pytest.mark.parametrize("start", [BOM[:1], BOM[:2], b"\xef\xbb\xbe", b"\xbb\xbf", b"\xef\n", BOM[:2] + b"\r"])
def test_bytes_that_only_begin_like_a_byte_order_mark_are_kept(start: bytes) -> None:
    assert decode_every_way(start + b"data: a\n\n") == naive(start + b"data: a\n\n", "")
    assert decode_every_way(start) == naive(start, "")


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("start", ["é", "漢", "😀"])
def test_an_incomplete_character_before_a_line_end_keeps_the_line_end(start: str, end: bytes) -> None:
    for size in range(1, len(start.encode())):
        bad = start.encode()[:size]
        assert events(b"data: " + bad + end + b"data: b" + end + end) == [("\ufffd\nb", "message", "")]


def test_a_type_is_for_one_event_only_and_an_empty_type_is_the_default() -> None:
    stream = b"event: a\ndata: 1\n\ndata: 2\n\nevent: b\n\ndata: 3\n\nevent: c\nevent\ndata: 4\n\nevent: \ndata: 5\n\n"
    assert events(stream) == [(f"{n + 1}", kind, "") for n, kind in enumerate(["a", *["message"] * 4])]
    assert events(b"data: 1\nevent: late\n\n") == [("1", "late", "")]


def test_an_id_stays_until_the_next_id_even_an_empty_one() -> None:
    stream = b"id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\nid\ndata: d\n\nid: 3\nid:\ndata: e\n\n"
    assert [id for _, _, id in events(stream)] == ["1", "1", "2", "", ""]
    assert events(b"data: a\n\n", last_event_id="before") == [("a", "message", "before")]


@pytest.mark.parametrize("id", [b"\0", b"1\0", b"\x001", b" \0", b"1\x002"])
def test_an_id_with_a_nul_is_ignored(id: bytes) -> None:
    assert events(b"id: ok\nid: " + id + b"\ndata: a\n\n") == [("a", "message", "ok")]
    assert events(b"id: ok\n\nid: " + id + b"\ndata: a\n\n") == [("a", "message", "ok")]


def test_a_block_with_only_an_id_sets_the_id() -> None:
    assert decode_every_way(b"id: 7\n\n")[:2] == ([], "7")
    assert decode_every_way(b"data: a\n\nid: 7\nevent: x\n\n")[1] == "7"


def test_an_unfinished_event_is_dropped_with_its_id() -> None:
    assert decode_every_way(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")[:2] == ([Message("a", id="1")], "1")
    assert decode_every_way(b"id: 2", last_event_id="1")[:2] == ([], "1")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"0", 0),
        (b"1500", 1500),
        (b"007", 7),
        (b"9" * 26, MAX_RETRY),
        (b"9" * 10_000, MAX_RETRY),
        (b"0" * 10_000 + b"5", 5),
        (b"0" * 10_000, 0),
        *((bad, None) for bad in (b"", b"+5", b"-5", b" 5", b"5 ", b"1_0", b"5.0", b"5x", b"0x5", b"1e3", b"\xd9\xa1")),
        ("²".encode(), None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_reconnection_time_has_only_ascii_digits(value: bytes, expected: int | None) -> None:
    assert decode_every_way(b"retry: " + value + b"\n", times=3)[2] == expected
    assert decode_every_way(b"retry: 3\n\nretry: " + value + b"\ndata: x\n\n", times=3)[2] == (
        3 if expected is None else expected
    )


def test_comments_are_returned_in_order_without_their_first_space() -> None:
    stream = b":\n: a\n:b\n:  c: d\ndata: x\n: in between\n\n:after\n: unfinished"
    assert decode_every_way(stream)[3] == [(0, ""), (0, "a"), (0, "b"), (0, " c: d"), (0, "in between"), (1, "after")]


def test_a_comment_is_returned_at_the_end_of_its_line() -> None:
    decoder = Decoder(comments=True)
    assert decoder.feed(b": ping") == []
    assert decoder.feed(b"\r") == [Message(comment="ping")]
    assert Decoder().feed(b": ping\n") == []


def test_a_single_cr_dispatches_at_once() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: a\r\r") == [Message("a", id="")]
    assert decoder.feed(b"\ndata: b\n") == []
    assert decoder.feed(b"\r") == [Message("b", id="")]
    assert decoder.feed(b"") == [] and decoder.feed(b"\n") == [] and decoder.feed(b"data: c\n\r") != []


def test_the_id_needs_a_blank_line_and_the_reconnection_time_does_not() -> None:
    decoder = Decoder("0")
    decoder.feed(b"id: 1\nretry: 5\ndata: x\n")
    assert (decoder.last_event_id, decoder.reconnection_time) == ("0", 5)
    decoder.feed(b"\n")
    assert decoder.last_event_id == "1"


def test_a_new_decoder_has_its_id_and_no_reconnection_time() -> None:
    assert (Decoder().last_event_id, Decoder("é").last_event_id, Decoder().reconnection_time) == ("", "é", None)
    with pytest.raises(ValueError, match="max_event_size"):
        Decoder(max_event_size=0)


LIMIT = 50


@pytest.mark.parametrize(
    ("data", "before"),
    [
        (b"data: %s\n\n" % (b"x" * (LIMIT + 1)), 0),
        (b"data: %s" % (b"x" * (LIMIT + 1)), 0),
        (b"data: a\n\n" * 20 + b"data: %s\n\ndata: after\n\n" % (b"x" * (LIMIT + 1)), 20),
        (b"data: a\n\n" * 20 + b"data: a\n" * (LIMIT // 2 + 1), 20),
        (b"data: a\n\n" * 20 + b"data: a\n" * (LIMIT // 2 + 1) + b"\ndata: after\n\n", 20),
        (b"data: a\n\n" + b"data\n" * (LIMIT + 2) + b"\ndata: after\n\n", 1),
        (b"data: a\n\n: %s\n\ndata: after\n\n" % (b"x" * 500), 1),
        (b"data: a\r\rid: %s\r\r" % (b"x" * 500), 1),
        (b"data: a\r\n\r\n%s" % (b"x" * 500), 1),
        (BOM + b"data: a\n\n%s" % (b"x" * 500), 1),
        (BOM + b"data: %s" % (b"x" * (LIMIT + 1)), 0),
        (BOM + b"data: %s\n\n" % (b"x" * (LIMIT + 1)), 0),
    ],
)
def test_an_event_that_is_too_large_raises_an_error_after_the_complete_events(data: bytes, before: int) -> None:
    messages, _, _, _, too_large = decode_every_way(data, limit=LIMIT)
    assert messages == [Message("a", id="")] * before and too_large


@pytest.mark.parametrize(
    "data",
    [
        b"data: %s\n\n" % (b"x" * LIMIT) * 3,
        (b"data: a\n" * (LIMIT // 2) + b"\n") * 3,
        b"data: a\n" + b": a comment of some length\n" * 100 + b"\n",
        b"data: a\n" + b"id: 1\nevent: x\nfield: y\n" * 100 + b"\n",
        b"data: %s\r\n\r\n" % (b"x" * LIMIT) * 3,
        BOM + b"data: %s\n\n" % (b"x" * LIMIT),
        BOM + b"data: %s\r\r" % (b"x" * LIMIT),
    ],
)
def test_an_event_of_exactly_the_maximum_size_is_decoded(data: bytes) -> None:
    messages, *_, too_large = decode_every_way(data, limit=LIMIT)
    assert messages and not too_large


def test_after_an_error_every_call_raises_and_the_text_has_the_limit() -> None:
    decoder = Decoder(max_event_size=LIMIT)
    assert decoder.feed(b"data: a\n\n" + b"x" * 100) == [Message("a", id="")]
    for chunk in (b"", b"", b"\n\ndata: b\n\n"):
        with pytest.raises(EventTooLarge, match="max_event_size, 50") as caught:
            decoder.feed(chunk)
        assert isinstance(caught.value, ValueError) and isinstance(caught.value, SSEHubError)


@pytest.mark.parametrize("chunk", [b"x" * 100, b"data: %s\n\n" % (b"x" * 100), b"data: a\n" * 30])
def test_without_a_message_before_it_the_error_is_raised_at_once(chunk: bytes) -> None:
    with pytest.raises(EventTooLarge):
        Decoder(max_event_size=LIMIT).feed(chunk)


def test_the_end_of_a_stream_does_not_hide_an_error() -> None:
    messages = decode([b"data: a\n\n" + b"x" * 100], max_event_size=LIMIT)
    assert next(messages) == Message("a", id="")
    with pytest.raises(EventTooLarge):
        next(messages)


FRAGMENTS = [
    *(b"data", b"data: ", b"data:", b"id: ", b"id", b"id:", b"event: ", b"event:", b"retry: ", b"retry:", b": ", b":"),
    *(b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"x", b"7", b"12", BOM, b"\xef", b"\xbb", b"\xff"),
    *("é".encode(), "😀".encode(), "\u2028".encode(), b"\x85", b"data: x\n\n", b"id: 7\ndata: y\n\n", b"x" * 1100),
    *(b"data: a\ndata: b\n\n", b"event: e\nid: 8\ndata: z\n\n", b"data: x\r\n\r\n", b"data: w\nid: 9\n\n"),
]

X = b"x" * 500
SKIPPED = '{"reason":"too_large","missed":1}'


def skipping(chunks: Iterable[bytes], limit: int = LIMIT) -> tuple[list[Message], str, int]:
    decoder = Decoder(max_event_size=limit, skip=True)
    messages = [message for chunk in chunks for message in decoder.feed(chunk)]
    assert sum(len(piece) for piece in decoder._buffer.pieces) + sum(map(len, decoder._data)) <= 2 * limit + 10
    return messages, decoder.last_event_id, decoder.skipped


def skipping_every_way(data: bytes, limit: int = LIMIT) -> tuple[list[Message], str, int]:
    whole = skipping([data], limit)
    assert skipping((data[n : n + 1] for n in range(len(data))), limit) == whole
    for seed in range(40):
        assert skipping(cuts(data, seed), limit) == whole, f"cut {seed}"
    return whole


@pytest.mark.parametrize(
    "large",
    [
        b"data: %s\nid: 7\n\n" % X,
        b"id: 7\ndata: %s\n\n" % X,
        b"event: e\nid: 7\ndata: a\ndata: %s\ndata: b\n\n" % X,
        b"id: 7\n" + b"data: a\n" * 100 + b"\n",
        b"data: a\n" * 100 + b"id: 7\n\n",
        b"id: 7\nevent: %s\ndata: a\n\n" % X,
        b"id: 7\nid: %s\ndata: a\n\n" % X,
        b"id: 7\rdata:%s\r\r" % X,
        b"id: 7\r\ndata:%s\r\ndata: %s\r\n\r\n" % (X, X),
        b"id: 7\ndata: %s\n\n" % ("\u2603" * 49).encode(),
    ],
)
def test_an_event_that_is_too_large_can_be_skipped_and_keeps_its_id(large: bytes) -> None:
    first, gap, last = Message("a", id=""), Message(SKIPPED, "ssehub.gap", id="7"), Message("b", "message", id="7")
    assert skipping_every_way(b"data: a\n\n" + large + b"data: b\n\n") == ([first, gap, last], "7", 1)
    assert skipping_every_way(BOM + large + large) == ([gap, gap], "7", 2)
    # An incomplete event is dropped together with its id, even if it is too large.
    assert skipping_every_way(b"data: a\n\n" + large[:-1].rstrip(b"\r\n")) == ([first], "", 0)


@pytest.mark.parametrize("line", [b": %s\n" % X, b"field: %s\n" % X, b"%s\n" % X, b"retry: 5%s\n" % X])
def test_with_skip_a_long_line_outside_of_events_is_ignored(line: bytes) -> None:
    stream = line + b"data: a\n" + line + b"\n" + line + b"data: b\n\n"
    assert skipping_every_way(stream) == ([Message("a", id=""), Message("b", id="")], "", 0)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=60).map(b"".join), st.integers(1, 60))
def test_only_events_that_are_too_large_are_skipped(data: bytes, limit: int) -> None:
    messages, last_event_id, skipped = skipping_every_way(data, limit)
    gaps = [message for message in messages if message.event == "ssehub.gap"]
    assert len(gaps) == skipped
    if not skipped and max(map(len, re.split(rb"[\r\n]", data))) <= limit:
        assert (messages, last_event_id) == naive(data, "")[:2]


def test_an_endless_event_does_not_use_up_memory() -> None:
    decoder = Decoder(max_event_size=LIMIT, skip=True)
    for piece in (b"data: ", *[X] * 100, b"\n", *[b"data: x\n"] * 1000):
        assert decoder.feed(piece) == []
        assert sum(map(len, decoder._buffer.pieces)) <= LIMIT + len(X) and len(decoder._data) <= LIMIT
    assert decoder.is_skipping
    assert [message.event for message in decoder.feed(b"\n")] == ["ssehub.gap"] and not decoder.is_skipping


@pytest.mark.parametrize("kind", [memoryview, bytearray])
def test_only_bytes_like_objects_are_decoded(kind: type) -> None:
    decoder = Decoder()
    assert decoder.feed(kind(b"data: a\n\ndata: b")) == [Message("a", id="")]
    assert decoder.feed(kind(b"\n\n")) == [Message("b", id="")]
    assert decoder.feed(kind(b"data: c\n\n")) == [Message("c", id="")]
    for wrong in ("data: a\n\n", 5, None, [1]):
        with pytest.raises(TypeError):
            decoder.feed(wrong)  # type: ignore[arg-type]


def test_decode_is_lazy_and_begins_with_an_id() -> None:
    def chunks() -> Iterable[bytes]:
        yield b"data: a\n\n"
        raise AssertionError("read ahead")

    assert next(decode(chunks(), last_event_id="7")) == Message("a", id="7")


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 5_000_000 + b"\n\n",
        b"data: x\n" * 600_000 + b"\n",
        b"data: x\n" + b":\n" * 1_000_000 + b"\n",
        b"\n\n" * 600_000 + b"data: x\n\n",
        b"data: x\n" + b"\r" * 1_000_000,
    ],
    ids=["a line", "lines", "comments", "blank lines", "carriage returns"],
)
def test_a_large_stream_in_small_pieces_takes_linear_time(stream: bytes) -> None:
    started = time.monotonic()
    pieces = (stream[n : n + 1024] for n in range(0, len(stream), 1024))
    assert len(list(decode(pieces, max_event_size=1 << 23))) == 1
    assert len(list(decode([stream], max_event_size=1 << 23))) == 1
    assert time.monotonic() - started < HANG


def test_many_comments_after_long_data_take_linear_time() -> None:
    started = time.monotonic()
    decoder = Decoder(max_event_size=400_000)
    decoder.feed(b"data: x\n" * 199_990)
    for _ in range(100_000):
        decoder.feed(b": c\n")
    assert len(decoder.feed(b"\n")) == 1
    assert time.monotonic() - started < HANG


@settings(deadline=None, max_examples=400)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=40).map(b"".join), st.sampled_from(["", "before"]))
@example(b"data: a\n\nid: 1\0\ndata: b\n\n", "")
@example(b"id: 1\nevent: \ndata: b\n\ndata: c\nid: 2\n\n", "")
def test_any_mixture_of_fields_is_decoded_as_specified(data: bytes, last_event_id: str) -> None:
    assert decode_every_way(data, last_event_id=last_event_id, times=6) == naive(data, last_event_id)


@settings(deadline=None, max_examples=400)
@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_as_specified(data: bytes) -> None:
    assert decode_every_way(data, times=6) == naive(data, "")


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=60).map(b"".join), st.integers(1, 60))
def test_the_limit_does_not_depend_on_the_chunks(data: bytes, limit: int) -> None:
    messages, *_, too_large = decode_every_way(data, limit=limit, times=12)
    assert all(len(message.data or "") <= limit for message in messages)
    if not too_large:
        assert messages == naive(data, "")[0]
