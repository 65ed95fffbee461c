"""Sender: sends packets to the partitions of a log, or leaves them in the outbox while Redis is away."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssehub.events import Message
from ssehub.log.packet import Command, Packet, Receipt
from ssehub.log.position import Places, Position
from ssehub.log.redis.outbox import Outbox
from ssehub.log.redis.writer import Letter, Unreachable, Writer
from ssehub.log.route import route_of


class Posted(NamedTuple):
    """What has become of a packet."""

    #: Its places; None if it waits in the outbox.
    places: Places | None
    #: The partitions that had no entry with its key.
    written: Sequence[int]
    #: The encoded message of an entry with its key; None if no partition had one.
    first: bytes | None

    def receipt(self, packet: Packet, queued: int) -> Receipt:
        """Return the receipt for the packet.

        :param queued: the number of its connections.
        """
        message = packet.message
        if self.first is not None and not self.written:
            with contextlib.suppress(ValueError):  # another program wrote the entry
                message = Message.decode(self.first)
        id = message.id if message.id is not None else str(self.places or "")
        return Receipt(id, queued, None if self.written or self.first is None else message)


class Sender:
    """Sends packets. Safe to use from any thread. Methods raise the errors of redis-py and of the writer.

    :param connect: connects to Redis and makes the writer, when the first packet is sent.
    :param key: returns the key of a partition.
    :param outbox_size: the maximum number of entries that may wait while Redis is away; 0 for no outbox.
    :param timeout: the maximum number of seconds that the exit of the process is delayed until the outbox is empty.
    :param is_cluster: whether the partitions are on several nodes, which can fail independently.
    """

    def __init__(
        self,
        connect: Callable[[], Writer],
        key: Callable[[int], str],
        outbox_size: int,
        timeout: float,
        is_cluster: bool,
    ) -> None:
        self._connect = connect
        self._key = key
        self._outbox_size = outbox_size
        self._is_cluster = is_cluster
        self._writer: Writer | None = None
        self._keys: dict[int, str] = {}
        #: The entries that wait. The owner of the log closes it.
        self.outbox: Outbox = Outbox(outbox_size, lambda letter: self._write().append(letter, 0.0), timeout)

    def check(self) -> None:
        """Check, once, that all processes use the same number of partitions.

        :raises LogError: if they do not.
        """
        self._write().agree()

    def key(self, number: int) -> str:
        """Return the key of a partition."""
        key = self._keys.get(number)
        if key is None:
            key = self._keys[number] = self._key(number)
        return key

    def post(self, packet: Packet, numbers: Sequence[int], nonce: str, deadline: float) -> Posted:
        """Send a packet to some partitions.

        :param nonce: the nonce of the entry, the same in all partitions.
        :param deadline: when the last attempt must have ended (``time.monotonic()``).
        """
        body, places, now = packet.encode(), Places(), time.time()
        written: list[int] = []
        first: bytes | None = None
        for number in numbers:
            route = json.dumps(route_of(packet, now), ensure_ascii=False)
            letter = Letter(self.key(number), nonce, route, body, once=packet.once or "")
            # Whether a production may begin must be known at once.
            may_wait = not (isinstance(packet, Command) and packet.what == "produce")
            place = self._put(number, letter, max(0.0, deadline - time.monotonic()), may_wait)
            if letter.first is None:
                written.append(number)
            else:
                first = letter.first
            if place is not None:
                place = place._replace(partition=number)
                places = Places((*places, place))
                if isinstance(packet, Command):
                    packet = packet.versioned_by(place)
        return Posted(places if len(places) == len(numbers) else None, written, first)

    def _put(self, number: int, letter: Letter, patience: float, may_wait: bool) -> Position | None:
        """Send an entry to a partition. Return its place; None if it waits in the outbox."""
        group = number if self._is_cluster else 0
        if not may_wait:
            return self._write().append(letter, patience)
        if not (self.outbox.holds(group) or (self._outbox_size and not patience)):
            try:
                return self._write().append(letter, patience)
            except Unreachable:
                if not self._outbox_size:
                    raise
        self.outbox.put(group, letter)
        return None

    def _write(self) -> Writer:
        writer = self._writer
        if writer is None:
            writer = self._writer = self._connect()
        return writer
