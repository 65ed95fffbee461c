"""Random programs against the model: everybody gets just what the log has for him after his start, in its order."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from ssehub import ALL, Hub, MemoryLog, Message, Packet
from ssehub.log import Position
from tests.followers import Follower

ZONES = ("a", "b", "c")
CLIENTS = ("ada", "bob", "eve")


def some_packet(chance: random.Random, text: str, followers: list[Follower]) -> Packet:
    zone = chance.choice((ALL, *ZONES))
    message = Message(text, id=f"own {text}" if chance.random() < 0.2 else None)
    if chance.random() < 0.4:
        return Packet(message, zone, chance.choice(CLIENTS))
    excluded = [one.session_id for one in followers if chance.random() < 0.1]
    return Packet(message, zone, broadcast=True, exclude=frozenset(excluded if chance.random() < 0.5 else ()))


def expected(log: MemoryLog, follower: Follower, zones: tuple[str, ...], client_id: str) -> list[str | None]:
    start = Position.parse(follower.events[0].id or "")
    assert start is not None
    return [
        entry.packet.message.data
        for entry in log.read(start, 1_000_000).entries
        if (entry.packet.zone is ALL or entry.packet.zone in zones)
        and entry.packet.client_id in (None, client_id)
        and follower.session_id not in entry.packet.exclude
    ]


@pytest.mark.parametrize("seed", range(6))
def test_everybody_gets_exactly_what_is_his(make_hub: Callable[..., Hub], seed: int) -> None:
    chance = random.Random(seed)
    log = MemoryLog(1_000_000)
    hub = make_hub(log, heartbeat=0.01)  # alarms wake sleepers all the time, besides the messages
    places = [(tuple(chance.sample(ZONES, chance.randint(1, 3))), chance.choice(CLIENTS)) for _ in range(12)]
    followers: list[Follower] = []

    def publish(k: int) -> None:
        mine = random.Random(seed * 100 + k)
        for n in range(400):
            hub.send_message(some_packet(mine, f"{k} {n}", followers))
            if mine.random() < 0.05 and followers:
                slow = mine.choice(followers)
                slow.reading.clear() if mine.random() < 0.5 else slow.reading.set()

    publishers = [threading.Thread(target=publish, args=(k,)) for k in range(4)]
    for thread in publishers:
        thread.start()
    for zones, client_id in places:  # they come while it goes on
        followers.append(Follower(hub, zone=list(zones), client_id=client_id))
    for thread in publishers:
        thread.join()
    hub.broadcast("end")
    for follower, (zones, client_id) in zip(followers, places, strict=True):
        follower.reading.set()
        follower.wait_for_last("end")
        assert follower.texts == expected(log, follower, zones, client_id)
        ids = [event.id for event in follower.events if event.event == "ssehub.cursor"]
        assert len(ids) == len(set(ids))
