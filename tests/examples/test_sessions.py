"""The example sessions: one user on several devices."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.example_apps import imported
from tests.streams import Stream, call


@pytest.fixture
def port(site: Callable[[Any], Any]) -> Iterator[int]:
    with imported("sessions") as sessions:
        yield site(sessions.app).port


class Device:
    """A user's device, signed in and with its stream open."""

    def __init__(self, port: int, user: str, device: str) -> None:
        self.port, self.user, self.device = port, user, device
        assert self.post("/sign-in", device=device) == {"user": user, "device": device}
        self.stream = Stream(port, f"/events?user={user}&device={device}")
        self.id: str = self.stream.opened()["session_id"]
        assert self.stream.message().event == "status"

    def post(self, path: str, **fields: str) -> Any:
        status, answer = call(self.port, "POST", path, {"user": self.user, **fields})
        assert status == 200, answer
        return answer

    def texts(self, count: int) -> list[str]:
        return [json.loads(text)["text"] for text in self.stream.data(count)]


def test_a_note_reaches_all_other_sessions_of_the_user(port: int) -> None:
    phone, laptop, tab = (Device(port, "ada", device) for device in ("phone", "laptop", "laptop"))
    bob = Device(port, "bob", "phone")
    assert phone.post("/note", text="from the phone", session_id=phone.id) == {"sessions": 2}
    assert laptop.post("/note", text="to all") == {"sessions": 3}
    assert phone.texts(1) == ["to all"]
    assert laptop.texts(2) == tab.texts(2) == ["from the phone", "to all"]
    bob.post("/note", text="bob's own")
    assert bob.texts(1) == ["bob's own"]


def test_a_note_may_be_for_one_kind_of_device_and_an_announcement_is_for_everybodys(port: int) -> None:
    phone, laptop, bob = Device(port, "ada", "phone"), Device(port, "ada", "laptop"), Device(port, "bob", "phone")
    assert laptop.post("/note", text="to my phone", device="phone") == {"sessions": 1}
    assert laptop.post("/announce", text="a new version", device="phone") == {"sessions": 2}
    assert phone.texts(2) == ["to my phone", "a new version"] and bob.texts(1) == ["a new version"]
    laptop.post("/note", text="last")
    assert laptop.texts(1) == ["last"]


def test_the_status_is_shared_and_a_session_that_comes_later_is_told(port: int) -> None:
    phone = Device(port, "ada", "phone")
    assert phone.post("/status", status="in a meeting") == {"sessions": 1}
    assert phone.stream.message().json() == "in a meeting"
    stream = Stream(port, "/events?user=ada&device=phone")
    assert stream.message().json() == "in a meeting"
    listed = call(port, "GET", "/sessions?user=ada")[1]
    assert listed["status"] == "in a meeting"
    assert [one["device"] for one in listed["sessions"]] == ["phone", "phone"]
    assert listed["sessions"][0]["session_id"] == phone.id
    assert call(port, "POST", "/status", {"user": "nobody", "status": "x"})[0] == 404


def test_one_session_is_disconnected_and_may_come_back(port: int) -> None:
    phone, laptop = Device(port, "ada", "phone"), Device(port, "ada", "laptop")
    assert laptop.post("/disconnect", session_id=phone.id) == {"sessions": 1}
    assert phone.stream.rest() == []
    again = Device(port, "ada", "phone")
    assert laptop.post("/note", text="both are here") == {"sessions": 2}
    assert again.texts(1) == laptop.texts(1) == ["both are here"]


def test_who_is_signed_out_everywhere_is_told_and_not_let_in_again(port: int) -> None:
    phone, laptop, bob = Device(port, "ada", "phone"), Device(port, "ada", "laptop"), Device(port, "bob", "phone")
    assert phone.post("/sign-out") == {"sessions": 2}
    for one in (phone, laptop):
        assert [event.event for event in one.stream.rest()] == ["signed-out"]
        assert call(port, "GET", f"/events?user=ada&device={one.device}") == (204, b"")
    bob.post("/note", text="still here")
    assert bob.texts(1) == ["still here"]


def test_one_device_is_signed_out_and_the_others_stay(port: int) -> None:
    phone, laptop = Device(port, "ada", "phone"), Device(port, "ada", "laptop")
    assert laptop.post("/sign-out", device="phone") == {"sessions": 1}
    assert [event.event for event in phone.stream.rest()] == ["signed-out"]
    assert call(port, "GET", "/events?user=ada&device=phone")[0] == 204
    assert laptop.post("/note", text="alone") == {"sessions": 1}
    assert Stream(port, "/events?user=ada&device=laptop").response.status == 200


def test_a_user_or_device_that_is_missing_or_unknown_is_a_400(port: int) -> None:
    for query in ("", "user=ada", "user=ada&device=fridge", "user=a%0Ab&device=phone", "device=phone"):
        assert call(port, "GET", f"/events?{query}")[0] == 400, query
        assert call(port, "POST", f"/sign-in?{query}")[0] == 400, query
