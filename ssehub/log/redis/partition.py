"""Partition: one stream on Redis, and its newest entries in the memory of this process.

There are three positions in a partition. The *end of the stream* is the newest entry on Redis. The *end of the history*
is the newest entry that this process has read. ``end()`` is the newest entry that this process has also delivered.
"""

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
from ssehub.log.redis.progress import Progress
from ssehub.log.redis.stream import TOP, entry_of, follows, position_of, unreadable
from ssehub.logger import logger
from ssehub.single_flight import SingleFlight

#: The maximum number of entries that are fetched at a time.
PAGE = 1000


class Broken(Exception):
    """The next entry of the stream does not follow the entry that was read last."""


class Partition(Held):
    """The newest entries of a stream. The follower's thread adds entries, and any thread can read them.

    :param number: the partition's number in the log.
    :param key: the stream's key.
    :param size: the maximum number of entries to hold.
    :param client: the client that asks for the end of the stream.
    :param timeout: the maximum number of seconds that readers wait until this process has read all entries.
    """

    def __init__(self, number: int, key: str, size: int, client: Client, timeout: float) -> None:
        self.number = number
        self.key = key
        #: The number of open views, and when the last one was released (``time.monotonic()``).
        self.users = 0
        self.left: float = 0.0
        #: Set when the follower has begun to follow the partition.
        self.followed: threading.Event = threading.Event()
        self._size = size
        self.client = client
        self._timeout = timeout
        self._history: History | None = None
        self._delivered: Position
        #: The threads that wait until entries are read or delivered.
        self.progress: Progress = Progress()
        #: Makes sure that only one thread opens the partition.
        self.opening: SingleFlight[None] = SingleFlight()
        #: The number of entries that ssehub did not write, or that cannot be read.
        self.unreadable: int = 0
        #: If another program has written an entry after the newest of ours, the id of this entry.
        self._skipped: bytes | None = None
        self._asking = threading.Lock()
        #: When the end of the stream was last asked for (``time.monotonic()``), and why this process has not read up to
        #: it.
        self._asked = 0.0
        self._answer: Exception | None = None

    # For readers

    @property
    def is_open(self) -> bool:
        """Whether the partition can be read."""
        return self._history is not None

    def open(self, began: Callable[[Position], None]) -> None:
        """Read the stream, unless that was done. Only one thread at a time may call this.

        :param began: called with the end of the stream, before other threads can use the partition.
        """
        if self._history is None:
            history = self._fetch(self.client)
            began(history.end)
            self._delivered = history.end
            self._history = history

    def catch_up(self, place: Place) -> None:
        """Wait until this process has read the stream up to a place. The place may come from a faster process.

        :raises LogError: if Redis cannot be reached, or this process still lags behind after the timeout.
        """
        if not self.history.holds(place.parts[0]):
            self._catch_up()

    def locate(self, last_event_id: str) -> Position | Gap:
        """Find the place of an id. If the id is unknown, first wait until this process has read the whole stream.

        :raises LogError: as for :meth:`catch_up`.
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
        """Ask Redis for the end of the stream. If there is no stream, create it."""
        id, fields = (client or self.client).register_script(TOP)(keys=[self.key])
        return self._position(id, fields[1])[0]

    def lag(self) -> int:
        """Ask Redis how many entries of the stream were not delivered in this process yet."""
        delivered, end = self._delivered, self.fetch_end()
        return max(0, end.offset - delivered.offset) if end.epoch == delivered.epoch else end.offset

    # For the follower

    @property
    def history(self) -> History:
        """The history: the entries that this process holds."""
        if self._history is None:
            raise LogError("the log is not followed")
        return self._history

    @property
    def read_to(self) -> str:
        """The id of the entry that was read last."""
        end = self.history.end
        return f"{end.epoch}-{end.offset}" if self._skipped is None else self._skipped.decode()

    def take(self, id: bytes, fields: dict[bytes, bytes], deliver: Callable[[Entry], int]) -> None:
        """Add the next entry of the stream, and deliver it. Skip it if ssehub did not write it.

        :raises Broken: if the entry does not follow the one that was read last.
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
        if self.progress.concerns(position.nonce):
            self.progress.tell({position.nonce: queued})

    def resume(self, client: Client, deliver: Callable[[Entry], int]) -> None:
        """Add and deliver the entries after the end of the history.

        :raises Broken: if the stream does not continue there.
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
        """Read the whole stream again, because it does not continue at the end of the history.

        :param broken: called with the new end, and the new commands.
        """
        old, history = self.history, self._fetch(client)
        new = list(_new_in(history, old))
        self._history, self._delivered = history, history.end
        broken(history.end, [entry.packet for entry in new if isinstance(entry.packet, Command)])
        self.progress.tell({entry.position.nonce: 0 for entry in new})

    def has_read(self, entry: tuple[bytes, dict[bytes, bytes]]) -> bool:
        """Return whether an entry of the stream is the entry that was read last."""
        id, fields = entry
        return id == self._skipped or self._position(id, fields.get(b"h"))[0] == self.history.end

    def close(self) -> None:
        """Wake all waiting threads. The history can still be read."""
        self.progress.close()

    def _fetch(self, client: Client) -> History:
        """Read the whole stream. Return its newest entries, as far back as each entry follows the one before.

        If there is no stream, create it.
        """
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
        """Decode an entry. If another program wrote it, return a command that does nothing instead."""
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

    def _find(self, last_event_id: str) -> Position | None:
        return (parse_parts(last_event_id) or {}).get(self.number) or self.history.find(last_event_id)

    def _catch_up(self) -> None:
        came = time.monotonic()
        with self._asking:  # one thread asks; its answer is valid for all threads that came before it asked
            if self._asked < came:
                self._asked = time.monotonic()
                self._answer = self._await_end()
            answer = self._answer
        if answer is not None:
            raise LogError(f"the log cannot be read: {answer}") from answer

    def _await_end(self) -> Exception | None:
        """Wait until this process has read up to the current end of the stream. Return None, or why it did not."""
        deadline = time.monotonic() + self._timeout
        while (left := deadline - time.monotonic()) > 0 and not self.progress.closed:
            try:
                end = self.fetch_end()
            except ERRORS as error:
                return error
            if self._await(end, left):
                return None
        return LogError("the log is closed") if self.progress.closed else TimeoutError("this process lags behind it")

    def _await(self, end: Position, timeout: float) -> bool:
        """Wait until this process has read up to a place. Return whether it has.

        The wait also ends when the whole stream is read again: a stream that was rolled back may not have this place.
        """
        history = self.history
        self.progress.wait_for(lambda: self.history is not history or history.holds(end), timeout)
        return self.history.holds(end)

    def _position(self, id: bytes, link: bytes | None) -> tuple[Position, str | None]:
        position, previous = position_of(id, link)
        return position._replace(partition=self.number) if self.number else position, previous


def _new_in(history: History, old: History) -> Iterator[Entry]:
    """Yield the entries that are in the new history of a stream, but not in the old one."""
    end = old.end
    for entry in history.read(history.oldest(), history.end.offset).entries:
        place = entry.position
        if place.epoch > end.epoch or (place.epoch == end.epoch and not old.holds(place)):
            yield entry
