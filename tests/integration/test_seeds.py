"""What the four earlier systems failed at, one test each. Most run over a real socket, as their users did."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ssehub import ALL, Decoder, Hub, Message, Packet
from tests.conftest import Site
from tests.followers import Follower, only
from tests.streams import GUARD, Stream, until

MakeHub = Callable[..., Hub]
Serve = Callable[[Any], Site]


@pytest.fixture
def hub(make_hub: MakeHub) -> Hub:
    return make_hub(heartbeat=3600)


@pytest.fixture
def here(hub: Hub, site: Serve) -> Site:
    """Serve the hub; the path is the client's id."""

    def app(environ: dict[str, Any], start: Any) -> Any:
        return hub.connect(environ, client_id=environ["PATH_INFO"][1:] or None)(environ, start)

    return site(app)


def test_connecting_and_leaving_at_once_two_hundred_times_does_not_hurt_the_hub(hub: Hub, here: Site) -> None:
    for n in range(200):
        stream = here.stream()
        stream.reset() if n % 2 else stream.close()
    until(lambda: not hub.connections())
    stays = here.stream()
    stays.opened()
    hub.broadcast("fine")
    assert stays.message().data == "fine"
    stays.close()


def test_a_thousand_sends_of_each_kind_back_to_back_arrive_in_order(hub: Hub, here: Site) -> None:
    stream = here.stream("/me")
    stream.opened()
    for n in range(1000):
        hub.send("me", f"directed {n}")
        hub.broadcast(f"zone {n}", zone="default")
        hub.broadcast(f"all {n}")
    expected = [f"{kind} {n}" for n in range(1000) for kind in ("directed", "zone", "all")]
    assert stream.data(3000) == expected
    stream.close()


def test_a_client_leaving_during_a_broadcast_blocks_nobody(hub: Hub, here: Site) -> None:
    stays = here.stream()
    stays.opened()
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            passing = here.stream()
            passing.opened()
            passing.reset()

    visitor = threading.Thread(target=come_and_go)
    visitor.start()
    for n in range(2000):
        hub.broadcast(str(n))
    done.set()
    visitor.join()
    assert stays.data(2000) == [str(n) for n in range(2000)]
    assert hub.is_present("nobody") is False
    stays.close()


def test_a_stalled_reader_delays_nobody(hub: Hub, here: Site) -> None:
    stalled, reads = here.stream("/stalled"), here.stream("/reads")
    for stream in (stalled, reads):
        stream.opened()
    connection = hub.connections(client_id="stalled")[0]
    big = "x" * 65536
    n = 0
    while connection.lag < 3:
        hub.broadcast(f"{n} {big}")
        assert (reads.message().data or "").startswith(f"{n} ")
        n += 1
    assert [(text or "").split()[0] for text in stalled.data(n)] == [str(k) for k in range(n)]
    for stream in (stalled, reads):
        stream.close()


def test_an_empty_message_disconnects_nobody(hub: Hub, here: Site) -> None:
    stream = here.stream()
    stream.opened()
    with pytest.raises(ValueError, match="nothing"):
        hub.broadcast(Message())
    hub.broadcast("")
    hub.broadcast("after")
    assert stream.data(2) == ["", "after"]
    stream.close()


def test_a_second_connection_of_the_same_id_orphans_neither(hub: Hub, here: Site) -> None:
    first, second = here.stream("/same"), here.stream("/same")
    for stream in (first, second):
        stream.opened()
    first.close()
    until(lambda: len(hub.connections()) == 1)
    assert hub.send("same", "to the one that is left").queued == 1
    assert second.message().data == "to the one that is left"
    second.close()


@pytest.mark.parametrize("zone", [ALL, "", "default", "never existed"])
@pytest.mark.parametrize("client_id", [None, "me", "unknown"])
@pytest.mark.parametrize("broadcast", [True, False])
def test_every_combination_of_zone_client_and_broadcast_delivers_or_says_why_not(
    make_hub: MakeHub, zone: Any, client_id: str | None, broadcast: bool
) -> None:
    hub = make_hub()
    me = Follower(hub, client_id="me")
    other = Follower(hub, client_id="other", zone="z2")
    sensible = zone != "" and (broadcast != (client_id is not None))
    if not sensible:
        with pytest.raises(ValueError):
            Packet(Message("x"), zone, client_id, broadcast)
        return
    for_me = zone in (ALL, "default") and client_id in (None, "me")
    for_other = zone is ALL and client_id is None
    assert hub.send_message(Packet(Message("x"), zone, client_id, broadcast)).queued == for_me + for_other
    hub.broadcast("end")
    me.wait_for(*["x"] * for_me, "end")
    other.wait_for(*["x"] * for_other, "end")


def test_an_idle_stream_has_its_headers_at_once(here: Site) -> None:
    stream = here.stream()  # its constructor waits for the headers; the hub's heartbeat comes in an hour
    assert stream.response.status == 200
    stream.close()


def test_a_peer_that_died_is_gone_within_three_heartbeats(make_hub: MakeHub, site: Serve) -> None:
    hub = make_hub(heartbeat=0.1)

    def hidden(environ: dict[str, Any], start: Any) -> Any:
        shown = {key: value for key, value in environ.items() if key not in ("werkzeug.socket", "wsgi.input")}
        return hub.connect(shown)(environ, start)

    writes: list[int] = []
    hub.on_disconnect(lambda connection: writes.append(hub.stats()["sent_bytes"]))
    stream = site(hidden).stream()
    stream.opened()
    before = until(lambda: hub.stats()["sent_bytes"])
    stream.reset()
    until(lambda: writes)
    assert writes[0] - before <= 3 * len(b":\n\n")


def test_close_ends_everything_once_and_everywhere_twice_is_harmless(hub: Hub, here: Site) -> None:
    ended: list[str] = []
    hub.on_disconnect(lambda connection: ended.append(connection.id))
    streams = [here.stream() for _ in range(5)]
    ids = [stream.opened()["session_id"] for stream in streams]
    connections = hub.connections()
    for _ in range(2):
        hub.close()
        for connection in connections:
            connection.close()
    for stream in streams:
        stream.rest()
        stream.close()
    assert sorted(ended) == sorted(ids)


@pytest.mark.parametrize("field", ["event", "id", "data", "comment"])
@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\r\nb", "a\n\ndata: forged", "a\0b", "\n", "\r"])
def test_no_field_lets_another_in(hub: Hub, here: Site, field: str, bad: str) -> None:
    stream = here.stream()
    stream.opened()
    fields = {"data": "real", field: bad}
    try:
        hub.broadcast(Message(**fields))  # type: ignore[arg-type]
    except ValueError:
        assert field in ("event", "id")
    else:
        assert field in ("data", "comment") or (field == "event" and "\0" in bad)
        got = stream.message()
        assert got.data == fields["data"].replace("\r\n", "\n").replace("\r", "\n")
    hub.broadcast("end")
    assert stream.message().data == "end"
    stream.close()


@pytest.mark.parametrize(
    "data", [" lead", "trail\n", "", "\n", "a\r\nb", "u\u2028v\x85w\x0bx\x0cy", ": x", "data: x", "ü☃😀"]
)
def test_data_arrives_as_it_was_but_for_its_line_breaks(hub: Hub, here: Site, data: str) -> None:
    stream = here.stream()
    stream.opened()
    hub.broadcast(data)
    assert stream.message().data == data.replace("\r\n", "\n")
    stream.close()


def test_a_megabyte_arrives_whole(hub: Hub, here: Site) -> None:
    stream = here.stream()
    stream.decoder = Decoder(max_event_size=1 << 21)
    stream.opened()
    hub.broadcast("x" * (1 << 20))
    assert stream.message().data == "x" * (1 << 20)
    stream.close()


def test_an_idle_hub_uses_no_processor_time(hub: Hub, here: Site) -> None:
    streams = [here.stream() for _ in range(20)]
    for stream in streams:
        stream.opened()
    began = time.process_time()
    threading.Event().wait(0.5)
    assert time.process_time() - began < 0.25  # a busy loop would have used all of it
    for stream in streams:
        stream.close()


def test_an_http_1_0_client_gets_each_message_at_once(hub: Hub, here: Site) -> None:
    import socket

    with socket.create_connection(("127.0.0.1", here.port), timeout=GUARD) as sock:
        sock.sendall(b"GET /old HTTP/1.0\r\n\r\n")
        until(lambda: hub.is_present("old"))
        hub.broadcast("hello")
        got = b""
        while b"data: hello\n\n" not in got:
            got += sock.recv(65536)


def test_a_client_of_the_hub_learns_who_it_is_and_when_to_come_back(hub: Hub, here: Site) -> None:
    stream = here.stream()
    who = stream.opened()
    assert who["client_id"] == who["session_id"] == only(hub).id
    assert stream.decoder.reconnection_time == 2000
    stream.close()


def test_metadata_and_sessions_go_with_close(hub: Hub, here: Site) -> None:
    stream = Stream(here.port, "/ada")
    stream.opened()
    hub.set_metadata("ada", 1)
    hub.close()
    stream.rest()
    stream.close()
    assert not hub.is_present("ada") and hub.connections() == []
