"""Any program of hub calls has the same outcome with every log. The expected outcome comes from a short model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ssehub import ALL, Hub, Log, MemoryLog, UnknownClient
from tests.followers import Follower
from tests.shared_logs import SharedLog
from tests.streams import until

ZONES = ("a", "b", "c")
CLIENTS = ("ada", "bob", "eve")

hubs = st.integers(0, 1)
zones = st.lists(st.sampled_from(ZONES), min_size=1, max_size=3, unique=True)
clients = st.sampled_from(CLIENTS)
anywhere = st.sampled_from((ALL, *ZONES))
index = st.integers(0, 1000)


@dataclass
class Person:
    """The model of a connection: its client, its zones, and the messages that it has to get."""

    follower: Follower
    hub: int
    client_id: str
    zones: list[str]
    due: list[str] = field(default_factory=list)


class Program(RuleBasedStateMachine):
    """Calls hubs at random, and compares the results with the model."""

    logs: Any  # returns the logs of the two hubs; the same log twice if it is not shared
    ordered = True  # whether a connection in several zones gets messages in one order
    detach = False

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        made: list[Log] = type(self).logs()
        self.hubs = [Hub(log, heartbeat=0.02, detach=self.detach) for log in made]
        for hub in self.hubs:
            self.stack.callback(hub.close)
        self.here: list[Person] = []
        self.gone: list[Person] = []
        self.metadata: dict[str, str] = {}
        self.count = 0

    def hub(self, number: int) -> Hub:
        return self.hubs[number % len(self.hubs)]

    def deliver(self, zone: Any, client_id: str | None, excluded: list[str], hub: int) -> None:
        self.count += 1
        text = f"message {self.count}"
        if client_id is None:
            self.hub(hub).broadcast(text, zone=zone, exclude=excluded)
        else:
            self.hub(hub).send(client_id, text, zone=zone)
        for one in self.here + self.gone:
            is_his = (zone is ALL or zone in one.zones) and client_id in (None, one.client_id)
            if is_his and one.follower.session_id not in excluded:
                one.due.append(text)

    @rule(hub=hubs, zones=zones, client_id=clients)
    def connect(self, hub: int, zones: list[str], client_id: str) -> None:
        if len(self.here) < 8:
            # A new connection begins where its process has read the log to.
            until(lambda: self.hub(hub)._log.lag() == 0)
            self.here.append(Person(Follower(self.hub(hub), zone=zones, client_id=client_id), hub, client_id, zones))

    @rule(hub=hubs, which=index)
    def come_back(self, hub: int, which: int) -> None:
        if self.gone:
            one = self.gone.pop(which % len(self.gone))
            one.due = one.due[len(one.follower.texts) :]
            last = one.follower.decoder.last_event_id
            one.hub = hub
            one.follower = Follower(self.hub(hub), zone=one.zones, client_id=one.client_id, last_event_id=last)
            self.here.append(one)

    @rule(which=index)
    def leave(self, which: int) -> None:
        if self.here:
            one = self.here.pop(which % len(self.here))
            self.wait_for(one)
            before = len(one.follower.texts)
            one.follower.leave(self.hub(one.hub))
            one.due[before:before] = [str(text) for text in one.follower.texts[before:]]  # the message that ended it
            self.gone.append(one)
            self.forget(one.client_id)

    @rule(hub=hubs, zone=anywhere)
    def broadcast(self, hub: int, zone: Any) -> None:
        self.deliver(zone, None, [], hub)

    @rule(hub=hubs, zone=anywhere, which=index)
    def broadcast_to_others(self, hub: int, zone: Any, which: int) -> None:
        if self.here and self.ordered:
            self.deliver(zone, None, [self.here[which % len(self.here)].follower.session_id], hub)
            # This moves the cursors on. With an older cursor, an excluded client would get the message after a
            # reconnection, because its new session is not excluded.
            self.deliver(ALL, None, [], hub)

    @rule(hub=hubs, zone=anywhere, client_id=clients)
    def send(self, hub: int, zone: Any, client_id: str) -> None:
        self.deliver(zone, client_id, [], hub)

    @rule(hub=hubs, client_id=clients, zone=anywhere)
    def disconnect(self, hub: int, client_id: str, zone: Any) -> None:
        concerned = [one for one in self.here if one.client_id == client_id and (zone is ALL or zone in one.zones)]
        for one in concerned:
            self.wait_for(one)
        assert self.hub(hub).disconnect(client_id, zone=zone) == len(concerned)
        for one in concerned:
            one.follower.join()
            self.here.remove(one)
            self.gone.append(one)
        self.forget(client_id)

    @rule(hub=hubs, client_id=clients)
    def note(self, hub: int, client_id: str) -> None:
        self.count += 1
        if any(one.client_id == client_id for one in self.here):
            self.hub(hub).set_metadata(client_id, f"note {self.count}")
            self.metadata[client_id] = f"note {self.count}"
        else:
            with pytest.raises(UnknownClient):
                self.hub(hub).set_metadata(client_id, "x")

    @invariant()
    def every_connection_has_its_messages(self) -> None:
        for one in self.here:
            self.wait_for(one)

    @invariant()
    def every_hub_sees_all_connections(self) -> None:
        there = sorted((one.client_id, tuple(one.zones)) for one in self.here)
        counts = {zone: sum(zone in one.zones for one in self.here) for zone in ZONES}
        for hub in self.hubs:
            until(
                lambda hub=hub: there == sorted((one.client_id, one.zones) for one in hub.connections(everywhere=True))
            )
            until(lambda hub=hub: hub.zones() == {zone: n for zone, n in counts.items() if n})
            for client_id in CLIENTS:
                present = any(one.client_id == client_id for one in self.here)
                assert hub.is_present(client_id) == present
                if present:
                    until(lambda hub=hub, id=client_id: hub.get_metadata(id) == self.metadata.get(id))

    def wait_for(self, one: Person) -> None:
        until(lambda: len(one.follower.texts) >= len(one.due), f"{one.due} but got {one.follower.texts}")
        if self.ordered or len(one.zones) == 1:
            assert one.follower.texts == one.due
        else:
            assert sorted(map(str, one.follower.texts)) == sorted(one.due)

    def forget(self, client_id: str) -> None:
        if not any(one.client_id == client_id for one in self.here):
            self.metadata.pop(client_id, None)

    def teardown(self) -> None:
        self.stack.close()
        for one in self.here:
            one.follower.join()


@pytest.fixture(
    params=["memory", "redis", "redis, 5 partitions", "memory, detached", "redis, 5 partitions, detached", "sqlite",
            "postgres"]
)  # fmt: skip
def program(request: pytest.FixtureRequest) -> Iterator[type[Program]]:
    """Return the state machine for one type of log."""
    options = {"partitions": 5} if "partitions" in request.param else {}

    class OfThisLog(Program):
        ordered = not options
        detach = "detached" in request.param

        @staticmethod
        def logs() -> list[Log]:
            if "memory" in request.param:
                return [MemoryLog()]
            log = SharedLog(request, request.param.split(",")[0])
            return [log(**options) for _ in range(2)]

    yield OfThisLog


def test_any_program_has_the_same_outcome_as_the_model(program: type[Program]) -> None:
    run_state_machine_as_test(
        program,
        settings=settings(
            max_examples=8,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
