"""Packet: the address of a message, and the checks of its fields."""

from __future__ import annotations

from typing import Any

import pytest

from ssehub import ALL, Hub, Message, Packet, event_stream
from ssehub.events import decode
from ssehub.log.packet import _warn_once
from ssehub.log.position import Places, Position

PLACE, OTHER = Position(123456, 5, "0123abcd"), Position(99, 1, "00000000", 3)
HELLO = Message("hello")


@pytest.mark.parametrize(
    ("zone", "client_id", "broadcast"),
    [(ALL, None, True), ("z", None, True), ("z", "c", False), (ALL, "c", False)],
)
def test_the_four_kinds_of_addresses(zone: Any, client_id: str | None, broadcast: bool) -> None:
    packet = Packet(HELLO, zone, client_id, broadcast)
    assert (packet.zone, packet.client_id, packet.broadcast) == (zone, client_id, broadcast)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ValueError, "addresses nobody"),
        ({"zone": "z"}, ValueError, "addresses nobody"),
        ({"client_id": "c", "broadcast": True}, ValueError, "not both"),
        ({"zone": None, "broadcast": True}, TypeError, "ALL"),
        ({"zone": "", "broadcast": True}, ValueError, "empty"),
        ({"zone": 7, "broadcast": True}, TypeError, "str"),
        ({"zone": "a\nb", "broadcast": True}, ValueError, "control"),
        ({"zone": "\ud800", "broadcast": True}, ValueError, "surrogate"),
        ({"zone": "x" * 256, "broadcast": True}, ValueError, "255"),
        ({"client_id": ""}, ValueError, "empty"),
        ({"client_id": 7}, TypeError, "str"),
        ({"client_id": "a\0"}, ValueError, "control"),
        ({"broadcast": 1}, TypeError, "bool"),
        ({"broadcast": True, "exclude": "abc"}, TypeError, "collection of session ids"),
        ({"broadcast": True, "exclude": None}, TypeError, "collection of session ids"),
        ({"broadcast": True, "exclude": [None]}, TypeError, "None"),
        ({"broadcast": True, "exclude": [1]}, TypeError, "str"),
    ],
)
def test_an_invalid_packet_is_rejected(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Packet(HELLO, **arguments)


@pytest.mark.parametrize("message", [None, "text", b"bytes", {"data": "x"}])
def test_a_packet_takes_only_a_message(message: Any) -> None:
    with pytest.raises(TypeError, match="Message"):
        Packet(message, broadcast=True)


def test_all_is_not_none_and_shows_its_name() -> None:
    assert ALL is not None and repr(ALL) == "ALL"


@pytest.mark.parametrize("event", ["ssehub.gap", "ssehub.open", "ssehub.x"])
def test_types_that_are_reserved_for_hubs_are_rejected(event: str) -> None:
    with pytest.raises(ValueError, match="own"):
        Packet(Message("x", event), broadcast=True)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"id": ""}, "empty"),
        ({"id": "x" * 256}, "255"),
        ({"id": "\x0b x"}, "control"),
        ({"id": "a\x7f"}, "control"),
        ({"id": "a\x85b"}, "control"),
        ({"id": "a\tb"}, "control"),
        ({"id": " a"}, "blank"),
        ({"id": "a "}, "blank"),
        ({"id": "\xa0a"}, "blank"),
        ({"id": "a\u3000"}, "blank"),
        ({"retry": 86_400_001}, "a day"),
    ],
)
def test_an_id_or_retry_with_which_a_client_cannot_come_back_is_rejected(fields: dict[str, Any], text: str) -> None:
    message = Message("x", **fields)
    with pytest.raises(ValueError, match=text):
        Packet(message, broadcast=True)
    with pytest.raises(ValueError, match=text):
        list(event_stream([message]).response)  # type: ignore[arg-type]


@pytest.mark.parametrize("cursor", [str(PLACE), str(PLACE._replace(partition=7)), str(Places((PLACE, OTHER)))])
def test_an_id_that_looks_like_a_cursor_is_rejected(cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        Packet(Message("x", id=cursor), broadcast=True)
    assert cursor.encode() in b"".join(event_stream([Message("x", id=cursor)]).response)  # type: ignore[arg-type]


@pytest.mark.parametrize("id", ["7", "order 42", "x" * 255, "ж漢😀", "a.1", "1-0"])
def test_all_other_ids_are_accepted(id: str) -> None:
    assert Packet(Message("x", id=id, retry=86_400_000), broadcast=True).message.id == id


def test_a_received_message_can_be_passed_on_in_a_stream() -> None:
    (received,) = decode([b"id:  odd \ndata: x\n\n"])
    assert b"id:  odd \n" in b"".join(event_stream([received]).response)  # type: ignore[arg-type]


@pytest.mark.parametrize("event", ["error", "open"])
def test_a_type_that_browsers_dispatch_themselves_is_warned_about_once(
    event: str, caplog: pytest.LogCaptureFixture
) -> None:
    _warn_once.cache_clear()
    hub, message = Hub(), Message("x", event)
    hub.broadcast(message)
    hub.send("ada", message)
    hub.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"an event of type '{event}' also calls EventSource.on{event} in every page: use another type"
    ]
