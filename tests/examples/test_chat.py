"""The example chat: to everyone, to one person, and who is there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from ssehub import Message
from tests.example_apps import imported
from tests.streams import Stream, call


@pytest.fixture
def port(site: Callable[[Any], Any]) -> Iterator[int]:
    with imported("chat") as chat:
        yield site(chat.app).port


def tab(port: int, username: str) -> Stream:
    """Open a tab, and read until the user is listed."""
    stream = Stream(port, "/chat/sse?" + urlencode({"username": username}))
    wait_for_online(stream, lambda users: username in users)
    return stream


def wait_for_online(stream: Stream, condition: Callable[[list[str]], bool]) -> list[str]:
    while True:
        message = stream.message()
        if message.event == "online" and condition(message.json()):
            users: list[str] = message.json()
            return users


def said(stream: Stream) -> Message:
    """Return the next thing that somebody has said."""
    while True:
        message = stream.message()
        if message.event != "online":
            return message


def test_everyone_gets_a_broadcast_with_all_its_fields(port: int) -> None:
    ada, bob = tab(port, "ada"), tab(port, "bob")
    answer = call(port, "POST", "/chat/broadcast", {"from": "ada", "message": "hello\n<b>all</b>"})
    assert answer == (200, {"message": "success"})
    for stream in (ada, bob):
        message = said(stream)
        fields = message.json()
        assert message.event == "broadcast" and isinstance(fields.pop("timestamp"), int)
        assert fields == {"type": "broadcast", "from": "ada", "to": None, "message": "hello\n<b>all</b>"}


def test_a_direct_message_is_for_all_tabs_of_the_two_and_nobody_else(port: int) -> None:
    theirs = [tab(port, name) for name in ("ada", "ada", "bob", "bob")]
    eve = tab(port, "eve")
    assert call(port, "POST", "/chat/direct?from=ada&to=bob&message=psst")[0] == 200
    call(port, "POST", "/chat/broadcast", {"from": "ada", "message": "loud"})
    for stream in theirs:
        assert said(stream).json()["message"] == "psst"
        assert said(stream).json()["message"] == "loud"
    assert said(eve).json()["message"] == "loud"


def test_who_writes_to_themselves_gets_it_once(port: int) -> None:
    ada = tab(port, "ada")
    for text in ("one", "two"):
        call(port, "POST", "/chat/direct", {"from": "ada", "to": "ada", "message": text})
    assert [said(ada).json()["message"] for _ in range(2)] == ["one", "two"]


def test_somebody_who_is_not_here_is_a_404_and_nobody_gets_it(port: int) -> None:
    ada = tab(port, "ada")
    status, answer = call(port, "POST", "/chat/direct", {"from": "ada", "to": "bob", "message": "psst"})
    assert status == 404 and "bob" in answer["error"]
    call(port, "POST", "/chat/broadcast", {"from": "ada", "message": "next"})
    assert said(ada).json()["message"] == "next"


def test_a_name_or_text_that_is_missing_or_bad_is_a_400_that_says_which(port: int) -> None:
    for method, path, wrong in (
        ("GET", "sse", "username"),
        ("GET", "sse?username=", "username"),
        ("GET", "sse?username=%20", "username"),
        ("GET", "sse?username=a%0Ab", "username"),
        ("GET", "sse?username=a%E2%80%AEb", "username"),
        ("GET", "sse?username=" + "a" * 33, "username"),
        ("POST", "broadcast?message=x", "from"),
        ("POST", "broadcast?from=ada", "message"),
        ("POST", "broadcast?from=ada&message=" + "x" * 2001, "message"),
        ("POST", "direct?from=ada&message=x", "to"),
        ("POST", "direct?from=&to=ada&message=x", "from"),
    ):
        status, answer = call(port, method, f"/chat/{path}")
        assert status == 400 and answer["error"].startswith(f"{wrong} must"), path


def test_a_user_leaves_with_the_last_tab(port: int) -> None:
    ada = tab(port, "ada")
    first, second = tab(port, "bob"), tab(port, "bob")
    wait_for_online(ada, lambda users: "bob" in users)
    first.close()
    tab(port, "eve").close()
    assert wait_for_online(ada, lambda users: "eve" in users) == ["ada", "bob", "eve"]
    assert wait_for_online(ada, lambda users: "eve" not in users) == ["ada", "bob"]
    second.close()
    assert wait_for_online(ada, lambda users: "bob" not in users) == ["ada"]


def test_when_many_come_at_once_the_last_list_has_them_all(port: int) -> None:
    ada, names = tab(port, "ada"), [f"user {number}" for number in range(20)]
    threads = [threading.Thread(target=tab, args=(port, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    call(port, "POST", "/chat/broadcast", {"from": "ada", "message": "that is all"})
    lists = []
    while (message := ada.message()).event == "online":
        lists.append(message.json())
    assert lists[-1] == sorted(["ada", *names])


def test_the_end_of_the_server_is_no_error(site: Callable[[Any], Any], caplog: pytest.LogCaptureFixture) -> None:
    with imported("chat") as chat:
        ada = tab(site(chat.app).port, "ada")
        chat.hub.close()
        ada.rest()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
