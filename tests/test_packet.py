"""Packet: whom a message is for."""

from __future__ import annotations

from typing import Any

import pytest

from ssehub import ALL, Message, Packet

HELLO = Message("hello")


@pytest.mark.parametrize(
    ("zone", "client_id", "broadcast"),
    [(ALL, None, True), ("z", None, True), ("z", "c", False), (ALL, "c", False)],
)
def test_the_four_ways_to_address(zone: Any, client_id: str | None, broadcast: bool) -> None:
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
        ({"broadcast": True, "exclude": "abc"}, TypeError, "single str"),
        ({"broadcast": True, "exclude": [None]}, TypeError, "None"),
        ({"broadcast": True, "exclude": [1]}, TypeError, "str"),
    ],
)
def test_a_packet_that_makes_no_sense_is_refused(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Packet(HELLO, **arguments)


@pytest.mark.parametrize("message", [None, "text", b"bytes", {"data": "x"}])
def test_only_a_message_is_a_message(message: Any) -> None:
    with pytest.raises(TypeError, match="Message"):
        Packet(message, broadcast=True)


def test_all_is_not_none_and_says_its_name() -> None:
    assert ALL is not None and repr(ALL) == "ALL"


@pytest.mark.parametrize("event", ["ssehub.gap", "ssehub.open", "ssehub.x"])
def test_the_hubs_own_types_are_not_for_senders(event: str) -> None:
    with pytest.raises(ValueError, match="own"):
        Packet(Message("x", event), broadcast=True)
