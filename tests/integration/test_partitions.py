"""Partitions: a log spread over several streams, on one server and on a cluster of three."""

from __future__ import annotations

import random
import secrets
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from werkzeug.test import create_environ

from ssehub import ALL, Gap, Hub, LogError, Message, Packet, RedisLog
from ssehub.log.redis.stream import stream_key
from tests.followers import Follower
from tests.redis_server import RedisCluster, RedisServer, ask
from tests.streams import until

MakeHub = Callable[..., Hub]
PARTITIONS = 8
ZONES = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Give a cluster."""
    one = RedisCluster(tmp_path_factory.mktemp("cluster"))
    yield one
    one.close()


@pytest.fixture(params=["server", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """Give the address of a server, or of a cluster."""
    name = {"server": "redis_server", "cluster": "cluster"}[request.param]
    return str(request.getfixturevalue(name).url)


@pytest.fixture
def make(url: str, make_hub: MakeHub) -> MakeHub:
    """Give a function that makes hubs on one log, each as if in a process of its own."""
    name = secrets.token_hex(8)
    settings = {"name": name, "partitions": PARTITIONS}
    return lambda **options: make_hub(RedisLog(url, **{**settings, **options}), heartbeat=0.05)


def partition_of(zone: str) -> int:
    return RedisLog("redis://", partitions=PARTITIONS).partitions((zone,))[0]


def other_than(zone: str) -> str:
    """Return a zone in another partition."""
    return next(one for one in ZONES if partition_of(one) != partition_of(zone))


def test_the_zones_of_these_tests_are_in_different_partitions() -> None:
    assert len({partition_of(zone) for zone in ZONES}) >= 3


def test_everybody_gets_once_what_is_for_him_whatever_his_zones(make: MakeHub) -> None:
    first, second = make(), make()
    one = Follower(first, zone="a", client_id="ada")
    several = Follower(second, zone=list(ZONES), client_id="bob")
    assert second.broadcast("to all").queued == 1
    first.send("bob", "to bob")
    first.send("ada", "to ada")
    second.broadcast("in a", zone="a")
    first.send("bob", "to bob in c", zone="c")
    first.send("ada", "to ada in c", zone="c")
    first.broadcast("not bob", exclude=[several.session_id])
    first.broadcast("end")
    one.wait_for("to all", "to ada", "in a", "not bob", "end")
    until(lambda: sorted(map(str, several.texts)) == sorted(["to all", "to bob", "in a", "to bob in c", "end"]))


def test_a_client_goes_on_in_each_of_its_partitions_where_it_was_at_another_process(make: MakeHub) -> None:
    first, second, sending = make(), make(), make()
    before = Follower(first, zone=list(ZONES))
    for n in range(20):
        sending.broadcast(f"before {n}", zone=ZONES[n % 5])
    until(lambda: len(before.texts) == 20)
    id = before.decoder.last_event_id
    assert id.count("~") == len({partition_of(zone) for zone in ZONES}) - 1
    for n in range(20):
        sending.broadcast(f"after {n}", zone=ZONES[n % 5])
    until(lambda: len(before.texts) == 40)
    after = Follower(second, zone=list(ZONES), last_event_id=id)
    until(lambda: len(after.texts) == 20)
    assert sorted(map(str, after.texts)) == sorted(f"after {n}" for n in range(20))
    one = Follower(second, zone="b", last_event_id=id)  # a cursor of all leads to each
    one.wait_for(*(f"after {n}" for n in range(20) if ZONES[n % 5] == "b"))


def test_where_a_cursor_says_nothing_of_a_partition_that_is_told(make: MakeHub) -> None:
    hub = make()
    one = Follower(hub, zone="a")
    hub.broadcast("a", zone="a")
    one.wait_for("a")
    other = other_than("a")
    for zones in ([other], ["a", other]):
        Follower(hub, zone=zones, last_event_id=one.decoder.last_event_id).wait_for("gap bad_id None")
    Follower(hub, zone=["a", other], last_event_id="nonsense").wait_for("gap bad_id None")


def test_an_id_of_the_publishers_own_is_found_in_its_partition(make: MakeHub) -> None:
    hub = make()
    Follower(hub, zone=["a", "c"])
    hub.broadcast(Message("1", id="own"), zone="a")
    hub.broadcast("2", zone="a")
    Follower(hub, zone="a", last_event_id="own").wait_for("2")


def test_a_page_and_its_stream_meet_at_the_cursor(make: MakeHub) -> None:
    rendering, serving = make(), make()
    everything, just_a = rendering.cursor(), rendering.cursor("a")
    assert len(just_a) < 40 and everything.count("~") == PARTITIONS - 1
    serving.broadcast("between", zone="a")
    for cursor in (everything, just_a):
        Follower(serving, zone="a", last_event_id=cursor).wait_for("between")
    late = Follower(serving, zone=list(ZONES), since="oldest")
    late.wait_for("between")
    Follower(serving, zone=list(ZONES), since=1).wait_for("between")


def test_one_partition_that_is_lost_is_told_and_the_others_go_on(make: MakeHub, url: str) -> None:
    hub = make()
    other = other_than("a")
    both, unconcerned = Follower(hub, zone=["a", other]), Follower(hub, zone=other)
    hub.broadcast("before", zone="a")
    both.wait_for("before")
    log = hub._log
    assert isinstance(log, RedisLog)
    log._sending.delete(stream_key(log._name, partition_of("a"), PARTITIONS))
    both.wait_for("before", "gap epoch None")
    hub.broadcast("after", zone="a")
    hub.broadcast("there", zone=other)
    until(lambda: both.texts[:2] == ["before", "gap epoch None"] and set(both.texts[2:]) == {"after", "there"})
    unconcerned.wait_for("there")


def test_a_process_that_has_another_number_of_partitions_is_told(
    make: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub, other = make(), make(partitions=4)
    Follower(hub, zone="a")
    with pytest.raises(LogError, match="has 8 partitions in other processes, and 4 here"):
        other.broadcast("x", zone="a")
    assert b"".join(other.stream(zone="a")).startswith(b"retry: ") and "has 8 partitions" in caplog.text


def test_after_a_change_of_the_number_it_is_another_log(make: MakeHub) -> None:
    hub, other = make(), make(partitions=4)
    one = Follower(hub, zone="a")
    hub.broadcast("x", zone="a")
    one.wait_for("x")
    log = hub._log
    assert isinstance(log, RedisLog)
    log._sending.delete(f"{{{log._name}}}:partitions")
    Follower(other, zone="a", last_event_id=one.decoder.last_event_id).wait_for(
        "gap bad_id None"
        if RedisLog("redis://", partitions=4).partitions("a")[0] != partition_of("a")
        else "gap epoch None"
    )


def test_a_process_reads_only_the_partitions_its_connections_are_in(
    redis_server: RedisServer, make_hub: MakeHub
) -> None:
    name = secrets.token_hex(8)
    hub = make_hub(RedisLog(redis_server.url, name=name, partitions=PARTITIONS))
    other = other_than("a")
    one = Follower(hub, zone="a")
    assert read_keys(redis_server, name) == {stream_key(name, partition_of("a"), PARTITIONS)}
    two = Follower(hub, zone=other)
    wanted = {stream_key(name, partition_of(zone), PARTITIONS) for zone in ("a", other)}
    assert read_keys(redis_server, name) == wanted
    hub.broadcast("x", zone=other)
    two.wait_for("x")
    assert one.texts == []


def read_keys(server: RedisServer, name: str) -> set[str]:
    """Return the keys of the next XREAD of a log."""
    with server.client.monitor() as monitor:
        for command in monitor.listen():
            words = command["command"].split()
            if words[0] == "XREAD" and name in command["command"]:
                keys = words[words.index("STREAMS") + 1 :]
                return set(keys[: len(keys) // 2])
    raise AssertionError


def test_keys_are_spread_evenly_over_the_slots_of_a_cluster(cluster: RedisCluster) -> None:
    slots = [ask(cluster.servers[0], "CLUSTER KEYSLOT", stream_key("name", n, 16)) for n in range(16)]
    assert [slot * 16 // 16384 for slot in slots] == list(range(16))


@pytest.mark.parametrize("partitions", [0, 1025])
def test_a_wrong_number_of_partitions_is_refused(partitions: int) -> None:
    with pytest.raises(ValueError, match="partitions"):
        RedisLog("redis://", partitions=partitions)


def test_a_cluster_of_which_no_node_answers_is_an_error_of_the_log(make_hub: MakeHub) -> None:
    hub = make_hub(RedisLog("redis+cluster://127.0.0.1:1", timeout=0.3))
    with pytest.raises(LogError):
        hub.broadcast("x")
    assert b"".join(hub.stream()).startswith(b"retry: ")


@pytest.mark.parametrize("seed", range(2))
def test_a_random_program_gives_everybody_what_is_his_in_the_order_of_each_partition(make: MakeHub, seed: int) -> None:
    chance = random.Random(seed)
    hubs = [make(size=1_000_000) for _ in range(2)]
    clients = ("ada", "bob", "eve")
    places = [(tuple(chance.sample(ZONES, chance.randint(1, 4))), chance.choice(clients)) for _ in range(10)]
    followers: list[Follower] = []

    def publish(k: int) -> None:
        mine = random.Random(seed * 100 + k)
        for n in range(150):
            zone = mine.choice((ALL, *ZONES, *ZONES))
            client_id = mine.choice(clients) if mine.random() < 0.4 else None
            message = Message(f"{k} {n}", id=f"own {k} {n}" if mine.random() < 0.1 else None)
            hubs[k % 2].send_message(Packet(message, zone, client_id, client_id is None))

    publishers = [threading.Thread(target=publish, args=(k,)) for k in range(4)]
    for thread in publishers:
        thread.start()
    for n, (zones, client_id) in enumerate(places):  # they come while it goes on
        followers.append(Follower(hubs[n % 2], zone=list(zones), client_id=client_id))
    for thread in publishers:
        thread.join()
    hubs[0].broadcast("end")  # returns when this hub has come to the end of all that it follows
    for follower, (zones, client_id) in zip(followers, places, strict=True):
        expected = addressed(hubs[0], follower, zones, client_id)
        until(lambda follower=follower, expected=expected: len(follower.texts) >= sum(map(len, expected.values())))
        partitions = {text: partition for partition, found in expected.items() for text in found}
        got: dict[int, list[str | None]] = defaultdict(list)
        for text in follower.texts:
            got[partitions[text]].append(text)
        assert got == expected


def addressed(hub: Hub, follower: Follower, zones: tuple[str, ...], client_id: str) -> dict[int, list[str | None]]:
    """Return what the log has for a client after its start, by partition."""
    found: dict[int, list[str | None]] = defaultdict(list)
    log = hub._log
    view = log.open(zones)
    start = view.locate(follower.events[0].id or "")
    assert not isinstance(start, Gap)
    page = view.read(start, 1_000_000)
    log.release(zones)
    home = log.partitions(zones)[0]
    for entry in page.entries:
        packet, partition = entry.packet, entry.position.partition
        to_zone = partition == home if packet.zone is ALL else packet.zone in zones
        if to_zone and packet.client_id in (None, client_id):
            found[partition].append(packet.message.data)
    return found


def test_a_partition_that_was_rolled_back_is_told_while_another_is_busy(
    make: MakeHub, redis_server: RedisServer
) -> None:
    hub = make()
    log = hub._log
    assert isinstance(log, RedisLog)
    quiet, busy = Follower(hub, zone="a"), Follower(hub, zone=other_than("a"))
    hub.broadcast("kept", zone="a")
    dump = log._sending.dump(stream_key(log._name, partition_of("a"), PARTITIONS))
    hub.broadcast("lost", zone="a")
    quiet.wait_for("kept", "lost")
    log._sending.restore(stream_key(log._name, partition_of("a"), PARTITIONS), 0, dump, replace=True)  # type: ignore[arg-type]
    until(lambda: hub.broadcast("x", zone=other_than("a")) and quiet.texts == ["kept", "lost", "gap ahead None"])
    assert set(busy.texts) == {"x"}


def test_a_partition_that_cannot_be_read_does_not_stop_the_others(
    make: MakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub = make()
    log = hub._log
    assert isinstance(log, RedisLog)
    both, fine = Follower(hub, zone=["a", other_than("a")]), Follower(hub, zone=other_than("a"))
    log._sending.set(stream_key(log._name, partition_of("a"), PARTITIONS), "not a stream")
    for n in range(3):
        hub.broadcast(str(n), zone=other_than("a"))
    for one in (both, fine):
        one.wait_for("0", "1", "2")
    until(lambda: "cannot be read" in caplog.text)
    log._sending.delete(stream_key(log._name, partition_of("a"), PARTITIONS))
    until(lambda: both.texts[-1] == "gap epoch None")
    hub.broadcast("again", zone="a")
    both.wait_for("0", "1", "2", "gap epoch None", "again")


def test_what_is_lost_in_several_partitions_is_told_and_all_go_on(redis_server: RedisServer, make_hub: MakeHub) -> None:
    name = secrets.token_hex(8)
    hub = make_hub(RedisLog(redis_server.url, name=name, partitions=PARTITIONS))
    follower = Follower(hub, zone=list(ZONES))
    hub.broadcast("before")
    follower.wait_for("before")
    with redis_server.client.pipeline(transaction=True) as pipe:
        for n in range(PARTITIONS):
            pipe.delete(stream_key(name, n, PARTITIONS))
        pipe.execute()
    until(lambda: "gap epoch None" in follower.texts)
    hub.broadcast("after")
    until(lambda: "after" in follower.texts)
    # Those whose loss was seen at once are one gap; those that were seen later are told apart, and perhaps last.
    assert set(follower.texts) == {"before", "gap epoch None", "after"}
    assert follower.texts.count("before") == follower.texts.count("after") == 1
    assert follower.texts.count("gap epoch None") <= len({partition_of(zone) for zone in ZONES})


def test_what_is_sent_to_one_session_comes_after_what_was_sent_to_all_before_in_every_partition(make: MakeHub) -> None:
    hub = make()
    follower = Follower(hub, zone=["a", other_than("a")])
    follower.stop_reading()
    hub.broadcast("stop reading", zone="a")
    until(lambda: hub.connections()[0].lag == 0)
    for n in range(3):
        hub.broadcast(f"a{n}", zone="a")
        hub.broadcast(f"b{n}", zone=other_than("a"))
    hub.connections()[0].send("private")
    hub.broadcast("later", zone=other_than("a"))
    follower.reading.set()
    until(lambda: len(follower.texts) == 9)
    place = follower.texts.index("private")
    assert {f"{zone}{n}" for zone in "ab" for n in range(3)} <= set(follower.texts[:place])


def test_all_processes_agree_on_metadata_that_several_have_set_at_once(make: MakeHub) -> None:
    first, second, asking = make(), make(), make()
    Follower(first, zone="a", client_id="ada")
    Follower(second, zone=other_than("a"), client_id="ada")
    setters = [
        threading.Thread(target=lambda k=k: [asking.set_metadata("ada", [k, n]) for n in range(40)]) for k in range(3)
    ]
    for thread in setters:
        thread.start()
    for thread in setters:
        thread.join()
    asking.set_metadata("ada", "settled")
    until(lambda: first.get_metadata("ada") == second.get_metadata("ada") == "settled")
    for thread in (racing := [threading.Thread(target=asking.set_metadata, args=("ada", k)) for k in range(8)]):
        thread.start()
    for thread in racing:
        thread.join()
    until(lambda: first.get_metadata("ada") == second.get_metadata("ada") != "settled")
    for hub in (first, second):  # nothing comes later that would change it
        hub.broadcast("level")
    assert first.get_metadata("ada") == second.get_metadata("ada")


def test_what_nobody_needs_is_followed_no_more(make: MakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssehub.log.redis.partitions._LINGER", 0.05)
    hub = make()
    for _ in range(2):
        follower = Follower(hub, zone=list(ZONES))
        hub.broadcast("x", zone="a")
        follower.wait_for("x")
        follower.leave(hub)
        until(lambda: not any(thread.name == "ssehub-redis" for thread in threading.enumerate()))


def test_a_server_that_forbids_to_name_and_unblock_connections_is_followed_all_the_same(
    tmp_path: Path, make_hub: MakeHub
) -> None:
    server = RedisServer(tmp_path)
    try:
        server.client.acl_setuser("plain", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-client"])
        hub = make_hub(RedisLog(server.url.replace("//", "//plain:@"), partitions=PARTITIONS))
        for zone in ("a", other_than("a")):
            follower = Follower(hub, zone=zone)
            hub.broadcast(zone, zone=zone)
            follower.wait_for(zone)
    finally:
        server.close()


def test_a_partition_that_cannot_be_reached_does_not_hold_back_the_outbox_of_the_others(
    cluster: RedisCluster, make_hub: MakeHub
) -> None:
    for one in cluster.servers:
        ask(one, "CONFIG SET", "cluster-require-full-coverage", "no")
    log = RedisLog(cluster.url, name=secrets.token_hex(8), partitions=3, timeout=2.0, outbox=20)
    hub = make_hub(log)
    zones = {log.partitions((zone,))[0]: zone for zone in map(str, range(50))}
    followers = [Follower(hub, zone=zones[number]) for number in range(3)]
    for number in range(3):  # partition 1 is on the second server
        hub.broadcast("before", zone=zones[number])
    cluster.servers[1].pause()
    try:
        assert hub.broadcast("later", zone=zones[1]).id == ""
        for _ in range(3):
            hub.broadcast("now", zone=zones[0])
            hub.broadcast("now", zone=zones[2])
        for number in (0, 2):
            followers[number].wait_for("before", "now", "now", "now")
        assert followers[1].texts == ["before"] and log.unsent == 1
    finally:
        cluster.servers[1].go_on()
    followers[1].wait_for("before", "later")
    until(lambda: log.unsent == 0)


def test_a_stream_reads_only_so_many_partitions() -> None:
    hub = Hub(RedisLog("redis://", partitions=128))
    zones = [f"z{n}" for n in range(100)]
    few = [zone for zone in zones if hub._log.partitions([zone])[0] < 32]
    request = create_environ("/")
    for act in (lambda: hub.connect(request, zone=zones), lambda: hub.stream(zone=zones), lambda: hub.cursor(zones)):
        with pytest.raises(ValueError, match="partitions of the log; a stream reads 32"):
            act()
    assert hub.connect(request, zone=few).status_code == 200
    hub.close()
