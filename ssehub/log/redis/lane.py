"""Lane: one stream, and what of it this process holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ssehub.exceptions import LogError
from ssehub.log.base import Gap, Page, Readable
from ssehub.log.packet import Entry, Order
from ssehub.log.position import Place, Position, parse_parts
from ssehub.log.redis.link import ERRORS, Client
from ssehub.log.redis.stream import TOP, entry_of, follows, position_of
from ssehub.log.ring import Ring

#: Entries fetched at a time.
PAGE = 1000


class Broken(Exception):
    """What the stream holds does not follow what was read from it."""


class Lane(Readable):
    """Hold the newest entries of a stream. A follower fills it, anybody reads it. Safe to use from any thread.

    :param number: which of the log's lanes it is.
    :param key: the stream's key.
    :param size: entries held at the most.
    :param client: asks where the stream ends now.
    :param timeout: seconds to wait until as much is held.
    """

    def __init__(self, number: int, key: str, size: int, client: Client, timeout: float) -> None:
        self.number = number
        self.key = key
        #: How many views are open, and when the last was left (``time.monotonic()``).
        self.users = 0
        self.left = 0.0
        #: Set once the lane is among those that are followed.
        self.followed = threading.Event()
        self._size = size
        self.client = client
        self._timeout = timeout
        self._ring: Ring | None = None
        self._delivered: Position
        #: Of the appends that wait for their entry: its nonce, and how many connections it was due to.
        self._echoes: dict[str, int | None] = {}
        #: How many wait for the tail to move.
        self._waiting = 0
        self._moved = threading.Condition()
        self._closed = False
        self._opening = threading.Lock()
        self._asking = threading.Lock()
        #: When the stream's end was last asked for (``time.monotonic()``), and why this process did not get there.
        self._asked = 0.0
        self._answer: Exception | None = None

    # For readers

    @property
    def is_open(self) -> bool:
        """Whether it can be read."""
        return self._ring is not None

    def open(self, began: Callable[[Position], None]) -> None:
        """Read the stream, if that has not been done.

        :param began: called with its tail before anybody else can use the lane.
        """
        with self._opening:
            if self._ring is None:
                ring = self._fetch(self.client)
                began(ring.tail)
                self._delivered = ring.tail
                self._ring = ring

    def read(self, after: Place, limit: int) -> Page:
        """Read on from a place.

        One that is strange here may just be newer, because another process has followed faster. So before it is
        called a gap, this process catches up.

        :raises LogError: if it cannot.
        """
        page = self.ring.read(after, limit)
        if page.gap is None or page.gap.reason == "trimmed":
            return page
        self._catch_up()
        return self.ring.read(after, limit)

    def locate(self, last_event_id: str) -> Position | Gap:
        """Find the place an id names. If it is unknown here, this process catches up.

        :raises LogError: if it cannot.
        """
        place = self._find(last_event_id)
        if place is None:
            self._catch_up()
            place = self._find(last_event_id)
        return place or Gap("bad_id", None, self.ring.tail)

    def tail(self) -> Position:
        """Return the place of the newest entry delivered in this process."""
        return self._delivered

    def oldest(self) -> Position:
        """Return the place before the oldest entry that is held."""
        return self.ring.oldest()

    def end(self, client: Client | None = None) -> Position:
        """Ask for the place where the stream ends now; one that is not there is begun."""
        id, fields = (client or self.client).register_script(TOP)(keys=[self.key])
        return self._position(id, fields[1])[0]

    def lag(self) -> int:
        """Ask how many entries have been written that were not delivered in this process."""
        delivered, end = self._delivered, self.end()
        return max(0, end.offset - delivered.offset) if end.epoch == delivered.epoch else end.offset

    # For those who append

    def expect(self, nonce: str) -> None:
        """Note that an entry of this process is about to be sent."""
        with self._moved:
            self._echoes[nonce] = None

    def await_echo(self, nonce: str, timeout: float) -> int:
        """Wait until an entry was delivered here; return to how many connections it was due, 0 if it did not come."""
        with self._moved:
            self._moved.wait_for(lambda: self._echoes.get(nonce) is not None or self._closed, timeout)
            return self._echoes.get(nonce) or 0

    def forget(self, nonce: str) -> None:
        """Expect an entry no more."""
        with self._moved:
            self._echoes.pop(nonce, None)

    # For the follower

    @property
    def ring(self) -> Ring:
        """What is held."""
        if self._ring is None:
            raise LogError("the log is not followed")
        return self._ring

    def take(self, id: bytes, fields: dict[bytes, bytes], deliver: Callable[[Entry], int]) -> None:
        """Deliver the entry that comes next.

        :raises Broken: if it is another.
        """
        position, previous = self._position(id, fields.get(b"h"))
        if previous is None or not follows(position, previous, self.ring.tail):
            raise Broken
        entry = entry_of(position, previous, fields)
        self.ring.keep(entry)
        queued = deliver(entry)
        self._delivered = position
        if position.nonce in self._echoes or self._waiting:
            self._tell_moved({position.nonce: queued})

    def resume(self, client: Client, deliver: Callable[[Entry], int]) -> None:
        """Take what has come since the tail.

        :raises Broken: if the stream does not go on from there.
        """
        tail = self.ring.tail
        entries: Any = client.xrange(self.key, min=f"{tail.epoch}-{tail.offset}", count=PAGE)
        if not entries or not self.is_at(entries[0], tail):
            raise Broken
        for id, fields in entries[1:]:
            self.take(id, fields, deliver)

    def begin_anew(self, client: Client, broken: Callable[[Position, list[Order]], None]) -> None:
        """Read the stream anew, because it does not go on from the tail.

        :param broken: called with the new tail, and the orders that are new.
        """
        old, ring = self.ring, self._fetch(client)
        new = list(_new_in(ring, old))
        self._ring, self._delivered = ring, ring.tail
        broken(ring.tail, [entry.packet for entry in new if isinstance(entry.packet, Order)])
        self._tell_moved({entry.position.nonce: 0 for entry in new})

    def is_at(self, entry: tuple[bytes, dict[bytes, bytes]], place: Position) -> bool:
        """Tell whether an entry of the stream is the one at a place."""
        return self._position(entry[0], entry[1].get(b"h"))[0] == place

    def close(self) -> None:
        """Release who waits; what is held can still be read."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()

    def _fetch(self, client: Client) -> Ring:
        """Read the whole stream, begun where there is none, and hold what at its end is of one piece."""
        ring = Ring(self._size, None, self.end(client))
        after = "-"
        while True:
            page: Any = client.xrange(self.key, min=after, count=PAGE)
            for id, fields in page:
                position, previous = self._position(id, fields.get(b"h"))
                if previous is None or not position.offset:
                    ring = Ring(self._size, None, position)
                    continue
                if not follows(position, previous, ring.tail):
                    ring = Ring(self._size, None, position._replace(offset=position.offset - 1, nonce=previous))
                ring.keep(entry_of(position, previous, fields))
            if len(page) < PAGE:
                return ring
            after = f"({page[-1][0].decode()}"

    def _tell_moved(self, delivered: dict[str, int]) -> None:
        with self._moved:
            self._echoes.update({nonce: queued for nonce, queued in delivered.items() if nonce in self._echoes})
            self._moved.notify_all()

    def _find(self, last_event_id: str) -> Position | None:
        return self.ring.find(last_event_id) or (parse_parts(last_event_id) or {}).get(self.number)

    def _catch_up(self) -> None:
        came = time.monotonic()
        with self._asking:  # one asks; what it learns holds for all who came before it began
            if self._asked < came:
                self._asked = time.monotonic()
                self._answer = self._await_end()
            answer = self._answer
        if answer is not None:
            raise LogError(f"the log cannot be read: {answer}") from answer

    def _await_end(self) -> Exception | None:
        """Wait until what is held here reaches to where the stream ends now; return why not."""
        deadline = time.monotonic() + self._timeout
        while (left := deadline - time.monotonic()) > 0 and not self._closed:
            try:
                end = self.end()
            except ERRORS as error:
                return error
            if self._await(end, left):
                return None
        return LogError("the log is closed") if self._closed else TimeoutError("this process lags behind it")

    def _await(self, end: Position, timeout: float) -> bool:
        """Wait until a place is held; no longer if the stream is read anew, perhaps from before it ended there."""
        ring = self.ring
        with self._moved:
            self._waiting += 1
            try:
                self._moved.wait_for(lambda: self._closed or self.ring is not ring or ring.holds(end), timeout)
            finally:
                self._waiting -= 1
        return self.ring.holds(end)

    def _position(self, id: bytes, link: bytes | None) -> tuple[Position, str | None]:
        position, previous = position_of(id, link)
        return position._replace(lane=self.number) if self.number else position, previous


def _new_in(ring: Ring, old: Ring) -> Iterator[Entry]:
    """Yield the entries of a stream that was read anew which were not in what was held of it before."""
    tail = old.tail
    for entry in ring.read(ring.oldest(), ring.tail.offset).entries:
        place = entry.position
        if place.epoch > tail.epoch or (place.epoch == tail.epoch and not old.holds(place)):
            yield entry
