"""Two versions can share a log: what is on Redis is what the page says, and what other versions write is read."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Callable

import pytest

from ssehub import ALL, Hub, RedisLog
from tests.followers import Follower
from tests.redis_server import RedisServer
from tests.servers import ROOT
from tests.streams import GUARD, until

PAGE = (ROOT / "docs" / "stability.rst").read_text()
#: A log as release 0.1.0 wrote it: ids, links, addresses and events. It is never changed; a new format is added to it.
RELEASE_0_1_0 = [
    ("0", {"h": "00000000|00000000"}),
    ("1", {"h": "1b35c48c|00000000", "r": '{"t": 1763900000.1234}', "d": "data: to everyone\n\n"}),
    ("2", {"h": "a057b591|1b35c48c", "r": '{"t": 1763900001.0, "z": "news"}', "d": "event: s\ndata: {\"a\":1}\n\n"}),
    ("3", {"h": "32a1a003|a057b591", "r": '{"t": 1763900002.0, "z": "news", "c": "ada"}', "d": "data: to ada\n\n"}),
    ("4", {"h": "1e367dce|32a1a003", "r": '{"t": 1763900003.0, "c": "bob"}', "d": "data: to bob\n\n"}),
    ("5", {"h": "0c6f2d11|1e367dce", "r": '{"t": 1763900004.0, "x": ["5e55"]}', "d": "id: own\ndata: with an id\n\n"}),
    ("6", {"h": "77aa0001|0c6f2d11", "r": '{"t": 1763900005.0, "c": "ada", "o": ["metadata", null, 7, null]}',
           "d": ": a command\n\n"}),
]  # fmt: skip
EPOCH = 1763900000000


@pytest.fixture
def name() -> str:
    return secrets.token_hex(8)


@pytest.fixture
def write(redis_server: RedisServer, name: str) -> Callable[[list[tuple[str, dict[str, str]]]], None]:
    """Give a function that writes entries into the log as another version does."""

    def add(entries: list[tuple[str, dict[str, str]]]) -> None:
        for offset, fields in entries:
            redis_server.client.xadd(f"{{{name}}}:log", fields, id=f"{EPOCH}-{offset}")  # type: ignore[arg-type]

    return add


@pytest.fixture
def hub(redis_server: RedisServer, name: str, make_hub: Callable[..., Hub]) -> Hub:
    return make_hub(RedisLog(redis_server.url, name=name))


def test_entries_of_release_0_1_0_are_read(hub: Hub, write: Callable[..., None]) -> None:
    write(RELEASE_0_1_0[:-1])
    ada = Follower(hub, zone="news", client_id="ada", since="oldest")
    ada.wait_for("to everyone", '{"a":1}', "to ada", "with an id")
    messages = [event for event in ada.events if not event.event.startswith("ssehub.")]
    assert [event.id for event in messages] == [
        "miboimm8.1.1b35c48c",
        "miboimm8.2.a057b591",
        "miboimm8.3.32a1a003",
        "own",
    ]
    write(RELEASE_0_1_0[-1:])
    until(lambda: hub.get_metadata("ada") == 7)
    hub.broadcast("of this release")
    ada.wait_for("to everyone", '{"a":1}', "to ada", "with an id", "of this release")
    assert hub.stats()["unreadable"] == 0


def test_a_cursor_of_release_0_1_0_is_continued(hub: Hub, write: Callable[..., None]) -> None:
    write(RELEASE_0_1_0)
    bob = Follower(hub, zone="other", client_id="bob", last_event_id="miboimm8.2.a057b591")
    bob.wait_for("to bob", "with an id")


def test_what_a_later_version_adds_is_ignored(hub: Hub, write: Callable[..., None]) -> None:
    write(RELEASE_0_1_0[:2])
    follower = Follower(hub)
    fields = {"h": "a057b591|1b35c48c", "r": '{"t": 1.0, "q": {"new": []}}', "d": "data: later\n\n", "n": "new"}
    write([("2", fields)])
    follower.wait_for("later")
    command = '{"t": 2.0, "c": "ada", "o": ["a command of the future", null, null, null]}'
    write([("3", {"h": "32a1a003|a057b591", "r": command, "d": ": a command\n\n"})])
    hub.broadcast("and on")
    follower.wait_for("later", "and on")
    assert hub.stats()["unreadable"] == 1


def test_the_keys_and_fields_on_redis_are_those_of_the_page(redis_server: RedisServer, hub: Hub, name: str) -> None:
    follower = Follower(hub, zone="news", client_id="ada")
    hub.broadcast("to everyone")
    hub.send("ada", "to ada", zone="news", exclude=[follower.session_id])
    hub.set_metadata("ada", 7)
    hub.broadcast("once", key="a key")
    over = threading.Event()
    hub.produce("news", iter(lambda: "more" if over.wait(GUARD) else "", "more"))
    until(lambda: redis_server.client.exists(f"{{{name}}}:where"))
    rows = re.findall(r"^``(\{ssehub\S*)`` +(\w+)  ", PAGE, re.MULTILINE)
    found = {key.decode(): redis_server.client.type(key).decode() for key in redis_server.client.scan_iter(f"*{name}*")}
    patterns = {_pattern(key, name): kind for key, kind in rows}
    unused = set(patterns)
    for key, kind in found.items():
        (pattern,) = [one for one in patterns if re.fullmatch(one, key)]
        assert patterns[pattern] == kind, key
        unused.discard(pattern)
    assert len(unused) == 1  # the stream of one partition of several
    entries = redis_server.client.xrange(f"{{{name}}}:log")
    fields = set(re.findall(r"^``(\w)``  ", PAGE, re.MULTILINE))
    assert all(set(entry) <= {one.encode() for one in fields} and next(iter(entry)) == b"h" for _, entry in entries)  # type: ignore[union-attr]
    parts = {part for _, entry in entries if b"r" in entry for part in json.loads(entry[b"r"])}  # type: ignore[union-attr]
    assert parts == set(re.findall(r"``([a-z])``:", PAGE))
    over.set()


def test_the_streams_of_partitions_have_the_names_of_the_page(
    redis_server: RedisServer, make_hub: Callable[..., Hub]
) -> None:
    name = secrets.token_hex(8)
    hub = make_hub(RedisLog(redis_server.url, name=name, partitions=2))
    hub.broadcast("to all partitions", zone=ALL)
    streams = {key.decode() for key in redis_server.client.scan_iter(f"*{name}*", _type="stream")}
    assert len(streams) == 2
    assert all(re.fullmatch(_pattern("{ssehub:N/P:n}:log", name), key) for key in streams)


def _pattern(key: str, name: str) -> str:
    pattern = re.escape(key).replace("ssehub", name)
    return re.sub(r"PROCESS|ID", r"[0-9a-f]{16}", re.sub(r"\bN\b|\bP\b|\bn\b", r"[0-9]+", pattern))
