"""Random programs: each connection gets exactly its messages in the log after its start, in order."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from ssehub import ALL, Hub, Log, MemoryLog, Message, Packet
from ssehub.log import Position
from tests.followers import Follower
from tests.shared_logs import KINDS, SharedLog

ZONES = ("a", "b", "c")
CLIENTS = ("ada", "bob", "eve")


def some_packet(chance: random.Random, text: str, followers: list[Follower]) -> Packet:
    zone = chance.choice((ALL, *ZONES))
    message = Message(text, id=f"own {text}" if chance.random() < 0.2 else None)
    if chance.random() < 0.4:
        return Packet(message, zone, chance.choice(CLIENTS))
    excluded = [one.session_id for one in followers if chance.random() < 0.1]
    return Packet(message, zone, broadcast=True, exclude=frozenset(excluded if chance.random() < 0.5 else ()))


def expected(log: Log, follower: Follower, zones: tuple[str, ...], client_id: str) -> list[str | None]:
    start = Position.parse(follower.events[0].id or "")
    assert start is not None
    return [
        entry.packet.message.data
        for entry in log.read(start, 1_000_000).entries
        if (entry.packet.zone is ALL or entry.packet.zone in zones)
        and entry.packet.client_id in (None, client_id)
        and follower.session_id not in entry.packet.exclude
    ]


@pytest.fixture(params=["memory", *KINDS])
def logs(request: pytest.FixtureRequest) -> list[Log]:
    """Return the log of one process, or the logs of two processes that share one."""
    if request.param == "memory":
        return [MemoryLog(1_000_000)]
    log = SharedLog(request, request.param)
    return [log(size=1_000_000) for _ in range(2)]


@pytest.mark.parametrize("detach", [False, True], ids=["threads", "detached"], indirect=True)
@pytest.mark.parametrize("seed", range(4))
def test_every_connection_gets_exactly_its_messages(make_hub: Callable[..., Hub], logs: list[Log], seed: int) -> None:
    chance = random.Random(seed)
    hubs = [make_hub(log, heartbeat=0.01) for log in logs]  # frequent heartbeats also wake the sleeping connections
    places = [(tuple(chance.sample(ZONES, chance.randint(1, 3))), chance.choice(CLIENTS)) for _ in range(12)]
    followers: list[Follower] = []

    def publish(k: int) -> None:
        mine = random.Random(seed * 100 + k)
        for n in range(400):
            hubs[k % len(hubs)].send_message(some_packet(mine, f"{k} {n}", followers))
            if mine.random() < 0.05 and followers:
                slow = mine.choice(followers)
                slow.reading.clear() if mine.random() < 0.5 else slow.reading.set()

    publishers = [threading.Thread(target=publish, args=(k,)) for k in range(4)]
    for thread in publishers:
        thread.start()
    for n, (zones, client_id) in enumerate(places):  # connect while messages are sent
        followers.append(Follower(hubs[n % len(hubs)], zone=list(zones), client_id=client_id))
    for thread in publishers:
        thread.join()
    taken_over = sum(hub.stats()["taken_over"] for hub in hubs)
    assert taken_over == (len(places) if hubs[0].settings.detach else 0)
    hubs[0].broadcast("end")
    for follower, (zones, client_id) in zip(followers, places, strict=True):
        follower.reading.set()
        follower.wait_for_last("end")
        assert follower.texts == expected(logs[0], follower, zones, client_id)
        ids = [event.id for event in follower.events if event.event == "ssehub.cursor"]
        assert len(ids) == len(set(ids))
