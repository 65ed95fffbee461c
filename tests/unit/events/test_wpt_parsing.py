"""The parsing tests of the ``eventsource`` directory of web-platform-tests, from a table of its cases."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ssehub.events import Message
from tests.decoding import decode_every_way
from tests.servers import ROOT

_TABLE = json.loads((ROOT / "tests" / "data" / "wpt_cases.json").read_text())
#: These cases depend on the status, the content type or the URL, which the client checks.
_CLIENT = ("format-mime", "request-redirect", "request-status", "eventsource-close", "eventsource-constructor")


def concerns_parsing(case: dict[str, Any]) -> bool:
    return bool(
        case["applicable"] and case.get("expect", {}).get("events") and not case["id"].startswith(_CLIENT)
    ) or case["id"].startswith(("format-field", "event-data"))


CASES = [case for case in _TABLE["cases"] if concerns_parsing(case)]


def body(case: dict[str, Any], request: int) -> bytes:
    """Return the response to the n-th request. The last response is repeated."""
    response = case["responses"][min(request, len(case["responses"]) - 1)]
    text: str = response["body"] + "".join(response.get("chunks", ()))
    return text.encode("latin-1")


def check(message: Message, expected: dict[str, str]) -> None:
    assert {"type": message.event, "data": message.data, "last_event_id": message.id}.items() >= expected.items()


def test_the_table_is_complete() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_web_platform_tests(case: dict[str, Any]) -> None:
    expected = case["expect"]["events"]
    requests = {request["n"]: request for request in case["expect"].get("requests", ())}
    last_event_id = ""
    messages: list[Message] = []
    for n in range(max([len(case["responses"]), len(expected), *requests])):
        request = requests.get(n + 1, {})
        sent = last_event_id.encode().decode("latin-1")
        if "last-event-id" in request.get("absent", ()):
            assert sent == ""
        if (header := request.get("headers", {}).get("last-event-id")) is not None:
            assert sent == header
        received, last_event_id, *_ = decode_every_way(body(case, n), last_event_id=last_event_id)
        messages += received
    assert len(messages) >= len(expected)
    for message, one in zip(messages, expected, strict=False):
        check(message, one)
