"""Partition: one stream, and the part of it that this process holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ssehub.exceptions import LogError
from ssehub.log.base import Gap
from ssehub.log.held import Held
from ssehub.log.history import History
from ssehub.log.packet import Command, Entry
from ssehub.log.position import Place, Position, parse_parts
from ssehub.log.redis.link import ERRORS, Client
from ssehub.log.redis.stream import TOP, entry_of, follows, position_of, unreadable
from ssehub.logger import logger
from ssehub.single_flight import SingleFlight

#: Entries fetched at a time.
PAGE = 1000


class Broken(Exception):
    """What the stream holds does not follow what was read from it."""


class Partition(Held):
    """The newest entries of a stream. A follower fills it, any thread reads it.

    :param number: its number in the log.
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
        self.left: float = 0.0
        #: Set once the partition is among those that are followed.
        self.followed: threading.Event = threading.Event()
        self._size = size
        self.client = client
        self._timeout = timeout
        self._history: History | None = None
        self._delivered: Position
        #: Of the appends that wait for their entry: its nonce, and how many connections it was due to.
        self._echoes: dict[str, int | None] = {}
        #: How many wait for the end to move.
        self._waiting = 0
        self._moved = threading.Condition()
        self._closed = False
        #: Opens the partition, and has it followed.
        self.opening: SingleFlight[None] = SingleFlight()
        #: Entries that ssehub has not written, or that cannot be read.
        self.unreadable: int = 0
        #: The id of an entry of others that was read after the end of what is held.
        self._skipped: bytes | None = None
        self._asking = threading.Lock()
        #: When the stream's end was last asked for (``time.monotonic()``), and why this process did not get there.
        self._asked = 0.0
        self._answer: Exception | None = None

    # For readers

    @property
    def is_open(self) -> bool:
        """Whether it can be read."""
        return self._history is not None

    def open(self, began: Callable[[Position], None]) -> None:
        """Read the stream, if that has not been done. One thread at a time may call this.

        :param began: called with its end before any other thread can use the partition.
        """
        if self._history is None:
            history = self._fetch(self.client)
            began(history.end)
            self._delivered = history.end
            self._history = history

    def catch_up(self, place: Place) -> None:
        """Wait until the stream is held up to a place that another process, which followed faster, has given out.

        :raises LogError: if Redis cannot be asked, or this process lags behind for too long.
        """
        if not self.history.holds(place.parts[0]):
            self._catch_up()

    def locate(self, last_event_id: str) -> Position | Gap:
        """Find the place an id names. If it is unknown here, this process catches up.

        :raises LogError: if it cannot.
        """
        place = self._find(last_event_id)
        if place is None:
            self._catch_up()
            place = self._find(last_event_id)
        return place or Gap("bad_id", None, self.history.end)

    def end(self) -> Position:
        """Return the place of the newest entry delivered in this process."""
        return self._delivered

    def fetch_end(self, client: Client | None = None) -> Position:
        """Ask for the place where the stream ends now; one that is not there is begun."""
        id, fields = (client or self.client).register_script(TOP)(keys=[self.key])
        return self._position(id, fields[1])[0]

    def lag(self) -> int:
        """Ask how many entries have been written that were not delivered in this process."""
        delivered, end = self._delivered, self.fetch_end()
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
    def history(self) -> History:
        """The entries that are held."""
        if self._history is None:
            raise LogError("the log is not followed")
        return self._history

    @property
    def read_to(self) -> str:
        """The id of the entry that was read last."""
        end = self.history.end
        return f"{end.epoch}-{end.offset}" if self._skipped is None else self._skipped.decode()

    def take(self, id: bytes, fields: dict[bytes, bytes], deliver: Callable[[Entry], int]) -> None:
        """Deliver the entry that comes next. What ssehub has not written is skipped.

        :raises Broken: if it is another.
        """
        position, previous = self._position(id, fields.get(b"h"))
        if previous is None:
            self._skip(id)
            return
        if not follows(position, previous, self.history.end):
            raise Broken
        entry = self._entry(position, previous, fields)
        self.history.keep(entry)
        self._skipped = None
        queued = deliver(entry)
        self._delivered = position
        if position.nonce in self._echoes or self._waiting:
            self._tell_moved({position.nonce: queued})

    def resume(self, client: Client, deliver: Callable[[Entry], int]) -> None:
        """Take what has come since the end of what is held.

        :raises Broken: if the stream does not go on from there.
        """
        end = self.history.end
        entries: Any = client.xrange(self.key, min=f"{end.epoch}-{end.offset}", count=PAGE)
        if not entries or self._position(entries[0][0], entries[0][1].get(b"h"))[0] != end:
            raise Broken
        for id, fields in entries[1:]:
            self.take(id, fields, deliver)
        if self._skipped not in [id for id, _ in entries]:  # it was deleted
            self._skipped = None

    def begin_anew(self, client: Client, broken: Callable[[Position, list[Command]], None]) -> None:
        """Read the stream anew, because it does not go on from the end of what is held.

        :param broken: called with the new end, and the commands that are new.
        """
        old, history = self.history, self._fetch(client)
        new = list(_new_in(history, old))
        self._history, self._delivered = history, history.end
        broken(history.end, [entry.packet for entry in new if isinstance(entry.packet, Command)])
        self._tell_moved({entry.position.nonce: 0 for entry in new})

    def has_read(self, entry: tuple[bytes, dict[bytes, bytes]]) -> bool:
        """Return whether an entry of the stream is the one that was read last."""
        id, fields = entry
        return id == self._skipped or self._position(id, fields.get(b"h"))[0] == self.history.end

    def close(self) -> None:
        """Release the threads that wait; what is held can still be read."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()

    def _fetch(self, client: Client) -> History:
        """Read the whole stream, begun where there is none, and hold what at its end is of one piece."""
        history = self._hold_from(self.fetch_end(client))
        after = "-"
        while True:
            page: Any = client.xrange(self.key, min=after, count=PAGE)
            for id, fields in page:
                position, previous = self._position(id, fields.get(b"h"))
                if previous is None:
                    self._skip(id)
                    continue
                if not position.offset:
                    history = self._hold_from(position)
                    continue
                if not follows(position, previous, history.end):
                    history = self._hold_from(position._replace(offset=position.offset - 1, nonce=previous))
                history.keep(self._entry(position, previous, fields))
                self._skipped = None
            if len(page) < PAGE:
                return history
            after = f"({page[-1][0].decode()}"

    def _entry(self, position: Position, previous: str, fields: dict[bytes, bytes]) -> Entry:
        """Read an entry; if others have written it, it may be anything."""
        try:
            return entry_of(position, previous, fields)
        except Exception:
            self._count_unreadable(str(position))
            return unreadable(position, previous)

    def _skip(self, id: bytes) -> None:
        if id != self._skipped:
            self._skipped = id
            self._count_unreadable(id.decode())

    def _count_unreadable(self, what: str) -> None:
        self.unreadable += 1
        if self.unreadable == 1:
            logger.error("entry %s of the stream %r was not written by ssehub, and is skipped", what, self.key)

    def _hold_from(self, place: Position) -> History:
        return History(self._size, None, place, can_fork=True)

    def _tell_moved(self, delivered: dict[str, int]) -> None:
        with self._moved:
            self._echoes.update({nonce: queued for nonce, queued in delivered.items() if nonce in self._echoes})
            self._moved.notify_all()

    def _find(self, last_event_id: str) -> Position | None:
        return (parse_parts(last_event_id) or {}).get(self.number) or self.history.find(last_event_id)

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
                end = self.fetch_end()
            except ERRORS as error:
                return error
            if self._await(end, left):
                return None
        return LogError("the log is closed") if self._closed else TimeoutError("this process lags behind it")

    def _await(self, end: Position, timeout: float) -> bool:
        """Wait until a place is held; no longer if the stream is read anew, perhaps from before it ended there."""
        history = self.history
        with self._moved:
            self._waiting += 1
            try:
                self._moved.wait_for(lambda: self._closed or self.history is not history or history.holds(end), timeout)
            finally:
                self._waiting -= 1
        return self.history.holds(end)

    def _position(self, id: bytes, link: bytes | None) -> tuple[Position, str | None]:
        position, previous = position_of(id, link)
        return position._replace(partition=self.number) if self.number else position, previous


def _new_in(history: History, old: History) -> Iterator[Entry]:
    """Yield the entries of a stream that was read anew which were not in what was held of it before."""
    end = old.end
    for entry in history.read(history.oldest(), history.end.offset).entries:
        place = entry.position
        if place.epoch > end.epoch or (place.epoch == end.epoch and not old.holds(place)):
            yield entry
