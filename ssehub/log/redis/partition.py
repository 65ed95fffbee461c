"""Partition: one stream on Redis, and its newest entries in the memory of this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from ssehub.log.history import History
from ssehub.log.packet import Command, Entry
from ssehub.log.position import Position
from ssehub.log.redis.link import ERRORS, Client
from ssehub.log.redis.stream import TOP, position_of
from ssehub.log.replica import Broken, Replica
from ssehub.log.route import entry_of, follows, unreadable
from ssehub.single_flight import SingleFlight

#: The maximum number of entries that are fetched at a time.
PAGE = 1000


class Partition(Replica):
    """The newest entries of a stream. The follower's thread adds entries, and any thread can read them.

    :param number: the partition's number in the log.
    :param key: the stream's key.
    :param size: the maximum number of entries to hold.
    :param client: the client that asks for the end of the stream.
    :param timeout: the maximum number of seconds that readers wait until this process has read all entries.
    """

    def __init__(self, number: int, key: str, size: int, client: Client, timeout: float) -> None:
        super().__init__(number, timeout, ERRORS)
        self.key = key
        #: The number of open views, and when the last one was released (``time.monotonic()``).
        self.users = 0
        self.left: float = 0.0
        #: Set when the follower has begun to follow the partition.
        self.followed: threading.Event = threading.Event()
        self._size = size
        self.client = client
        #: Makes sure that only one thread opens the partition.
        self.opening: SingleFlight[None] = SingleFlight()
        #: If another program has written an entry after the newest of ours, the id of this entry.
        self._skipped: bytes | None = None

    def open(self, began: Callable[[Position], None]) -> None:
        """Read the stream, unless that was done. Only one thread at a time may call this.

        :param began: called with the end of the stream, before other threads can use the partition.
        """
        if not self.is_open:
            self.open_with(self._fetch(self.client), began)

    def fetch_end(self, client: Client | None = None) -> Position:
        """Ask Redis for the end of the stream. If there is no stream, create it."""
        id, fields = (client or self.client).register_script(TOP)(keys=[self.key])
        return self._position(id, fields[1])[0]

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
        self._skipped = None
        self.add(entry, deliver)

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
        self.replace(self._fetch(client), broken)

    def has_read(self, entry: tuple[bytes, dict[bytes, bytes]]) -> bool:
        """Return whether an entry of the stream is the entry that was read last."""
        id, fields = entry
        return id == self._skipped or self._position(id, fields.get(b"h"))[0] == self.history.end

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
            return entry_of(position, previous, json.loads(fields[b"r"]), fields[b"d"])
        except Exception:
            self.count_unreadable(f"entry {position} of the stream {self.key!r}")
            return unreadable(position, previous)

    def _skip(self, id: bytes) -> None:
        if id != self._skipped:
            self._skipped = id
            self.count_unreadable(f"entry {id.decode()} of the stream {self.key!r}")

    def _hold_from(self, place: Position) -> History:
        return History(self._size, None, place, can_fork=True)

    def _position(self, id: bytes, link: bytes | None) -> tuple[Position, str | None]:
        position, previous = position_of(id, link)
        return position._replace(partition=self.number) if self.number else position, previous
