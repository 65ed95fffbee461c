"""Subscription: a bounded queue of a client's messages for another thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import pytest

from ssehub import Client, Message, StreamRefused, Subscription, SubscriptionClosed
from tests.scripted import REFUSED, STREAM, Exchange, bodies, held
from tests.streams import GUARD, until

Follow = Callable[..., Client]


def numbers(exchange: Exchange) -> None:
    """Send numbers until the client disconnects."""
    exchange.send(STREAM)
    n = 0
    with contextlib.suppress(OSError):
        while True:
            exchange.send(b"".join(b"id: %d\ndata: %d\n\n" % (k, k) for k in range(n, n + 100)))
            n += 100


def waiting_in(subscription: Subscription) -> int:
    return len(subscription._messages)


def test_a_subscription_returns_the_messages_of_its_type_in_order(follow: Follow) -> None:
    client = follow(bodies("event: a\ndata: 1\n\ndata: 2\n\nevent: a\ndata: 3\n\n"))
    some, every = client.subscribe("a"), client.subscribe()
    client.start()
    assert [message.data for message in some] == ["1", "3"]
    assert [message.data for message in every] == ["1", "2", "3"]


def test_get_waits_until_its_timeout(follow: Follow) -> None:
    client = follow(held(STREAM + b"data: x\n\n"))
    subscription = client.subscribe()
    with pytest.raises(TimeoutError):
        subscription.get(0.01)
    client.start()
    assert subscription.get(GUARD) == Message("x", id="")
    with pytest.raises(TimeoutError):
        subscription.get(0)


def test_a_slow_subscriber_slows_the_socket_and_loses_nothing(follow: Follow) -> None:
    client = follow(numbers)
    subscription = client.subscribe(size=10)
    client.start()
    until(lambda: waiting_in(subscription) == 10)
    # The client has stopped reading; the id shows its place.
    here = client.last_event_id
    for n in range(5000):
        assert subscription.get(GUARD).data == str(n)
        assert waiting_in(subscription) <= 10
    assert int(here) <= 10


def test_with_drop_oldest_the_oldest_messages_are_dropped_and_counted(follow: Follow) -> None:
    client = follow(numbers)
    subscription = client.subscribe(size=10, drop_oldest=True)
    client.start()
    until(lambda: subscription.dropped > 1000)
    assert client.stop(GUARD)
    rest = [int(message.data or "") for message in subscription]
    assert len(rest) == 10 and rest == list(range(rest[0], rest[0] + 10))
    assert subscription.dropped == rest[0]


def test_a_full_subscription_does_not_block_stop_restart_or_close(follow: Follow) -> None:
    client = follow(numbers)
    subscription = client.subscribe(size=1)
    connections = []
    client.on_connection(lambda: connections.append(1))
    client.start()
    until(lambda: waiting_in(subscription) == 1)
    client.restart()
    until(lambda: len(connections) == 2)
    with client.subscribe(size=1) as other:
        until(lambda: waiting_in(other) == 1 or subscription.get(GUARD))
    until(lambda: subscription.get(GUARD))
    assert client.stop(GUARD)


def test_a_message_that_waited_at_the_stop_is_not_lost(follow: Follow) -> None:
    client = follow(numbers)
    subscription = client.subscribe(size=3)
    client.start()
    until(lambda: waiting_in(subscription) == 3 and client.last_event_id == "3")
    assert client.stop(GUARD)
    got = [message.id for message in subscription]
    assert got == ["0", "1", "2", "3"] and client.last_event_id == "3"


def test_the_end_of_the_client_ends_a_subscription_after_its_messages(follow: Follow) -> None:
    client = follow(bodies("data: 1\n\ndata: 2\n\n"))
    subscription = client.subscribe()
    client.start()
    until(lambda: client.stop(0) if waiting_in(subscription) == 2 else False)
    assert [message.data for message in subscription] == ["1", "2"]
    for _ in range(2):
        with pytest.raises(SubscriptionClosed):
            subscription.get(GUARD)
    assert list(client.subscribe()) == []


def test_a_final_failure_is_raised_by_the_subscription(follow: Follow) -> None:
    client = follow(bodies("data: 1\n\n", REFUSED % 404))
    subscription = client.subscribe()
    client.start()
    assert subscription.get(GUARD).data == "1"
    for wait in (lambda: subscription.get(GUARD), lambda: next(subscription), lambda: list(client.subscribe())):
        with pytest.raises(StreamRefused):
            wait()


def test_close_wakes_waiting_threads(follow: Follow) -> None:
    client = follow(held(STREAM))
    subscription = client.subscribe()
    client.start()
    got: list[list[Message]] = []
    waiting = threading.Thread(target=lambda: got.append(list(subscription)))
    waiting.start()
    subscription.close()
    subscription.close()
    waiting.join(GUARD)
    assert got == [[]]


def test_several_threads_can_share_a_subscription(follow: Follow) -> None:
    client = follow(bodies("".join(f"data: {n}\n\n" for n in range(2000))))
    subscription = client.subscribe(size=10)
    got: list[str | None] = []
    threads = [threading.Thread(target=lambda: got.extend(message.data for message in subscription)) for _ in range(4)]
    for thread in threads:
        thread.start()
    client.start()
    for thread in threads:
        thread.join(GUARD)
    assert sorted(got, key=lambda text: int(text or "")) == [str(n) for n in range(2000)]


def test_subscriptions_can_be_added_and_closed_while_the_client_runs(follow: Follow) -> None:
    client = follow(numbers)
    client.start()
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        with client.subscribe(size=5) as subscription:
            first = int(subscription.get(GUARD).data or "")
            assert [subscription.get(GUARD).data for _ in range(20)] == [str(first + n) for n in range(1, 21)]
    assert client.stop(GUARD)
