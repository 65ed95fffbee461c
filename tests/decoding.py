"""Decoding for tests: the decoder gets the bytes as a whole and in pieces, and the results must be equal."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from ssehub.events import Decoder, Message
from ssehub.exceptions import EventTooLarge

#: The events, the last event id, the reconnection time, the comments (each with the number of events before it), and
#: whether an event was too large.
Outcome = tuple[list[Message], str, "int | None", list[tuple[int, str]], bool]


def outcome(chunks: Iterable[bytes], last_event_id: str, limit: int) -> Outcome:
    received: list[Message] = []
    too_large = False
    decoder = Decoder(last_event_id, max_event_size=limit, comments=True)
    try:
        for chunk in chunks:
            received += decoder.feed(chunk)
        received += decoder.feed(b"")
    except EventTooLarge:
        too_large = True
    messages: list[Message] = []
    comments: list[tuple[int, str]] = []
    for one in received:
        if one.comment is None:
            messages.append(one)
        else:
            comments.append((len(messages), one.comment))
    return messages, decoder.last_event_id, decoder.reconnection_time, comments, too_large


def cuts(data: bytes, seed: int) -> Iterable[bytes]:
    """Split bytes into pieces of random sizes. Some pieces are empty."""
    choice = random.Random(seed)
    longest = choice.choice([2, 3, 8, 40, 400, 4000])
    start = 0
    while start < len(data):
        size = choice.randint(0, longest)
        yield data[start : start + size]
        start += size


def decode_every_way(data: bytes, *, last_event_id: str = "", limit: int = 1 << 20, times: int = 40) -> Outcome:
    """Decode bytes as a whole, by bytes, by lines, by events and in random pieces. The results must be equal."""
    whole = outcome([data], last_event_id, limit)
    assert outcome((data[n : n + 1] for n in range(len(data))), last_event_id, limit) == whole
    assert outcome(re.split(rb"(?<=\n)", data), last_event_id, limit) == whole
    assert outcome(re.split(rb"(?<=\n\n)", data), last_event_id, limit) == whole
    for seed in range(times):
        assert outcome(cuts(data, seed), last_event_id, limit) == whole, f"cut {seed}"
    return whole
