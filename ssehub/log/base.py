"""Log: the interface of all logs. A log keeps messages in order, and readers read it from any place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ssehub.log.packet import ALL, All, Command, Entry, Packet, Receipt
from ssehub.log.position import Place, Position
from ssehub.log.presence import Presence

#: Why a reader cannot simply read on from its place:
#:
#: * ``trimmed``: the log has dropped the next messages.
#: * ``epoch``: the log was replaced by another one.
#: * ``fork``: the log was rolled back, and other messages were written.
#: * ``ahead``: the log was rolled back, and now ends before this place.
#: * ``too_far``: more messages follow than ``max_replay`` allows.
#: * ``bad_id``: the log has no place with this id.
Reason = Literal["trimmed", "epoch", "fork", "ahead", "too_far", "bad_id"]


class Gap(NamedTuple):
    """The report that messages are missing, or may be missing: why, how many, and where to read on."""

    reason: Reason
    #: The number of missing messages that were addressed to this reader. None if it is not known.
    missed: int | None
    #: Read on after this place. Then no message is read twice.
    place: Place


class Interest(NamedTuple):
    """Which messages a reader reads: those to its zones, to its client, and to everyone. Immutable."""

    zones: tuple[str, ...]
    #: The client whose messages are read, too. None: only messages to all members of the zones.
    client_id: str | None = None
    #: Whether messages without a zone are read. Every partition has them. So a reader of several partitions reads them
    #: from its first partition only: see :meth:`in_partitions`.
    zoneless: bool = True

    @property
    def shared(self) -> Interest:
        """The same interest without the client's own messages: the part that all members of the zones share."""
        return Interest(self.zones, None, self.zoneless)

    def in_partitions(self, partitions: Sequence[int]) -> dict[int, Interest]:
        """Return the interest for each partition of a reader. Messages without a zone are read from the first only."""
        return {number: self._replace(zoneless=number == partitions[0]) for number in partitions}


class Page(NamedTuple):
    """The result of one read: entries in order, or a gap if messages before the next entry are missing."""

    entries: Sequence[Entry]
    #: Read on after this place. The place is later than the last entry if the entries in between are for other readers.
    #: In a page with a gap: the place up to which the gap reports missing messages.
    place: Place
    #: True if the read reached the end of the log, or the place ``upto``.
    level: bool
    gap: Gap | None = None


class Readable(ABC):
    """A log, or some partitions of a log, as a reader sees it: ordered entries that can be read from any place.

    Safe to use from any thread. The contract, which ``tests/contract/test_log_contract.py`` checks:

    * :meth:`read` from any place returns exactly the reader's entries after this place, in order, or one gap. Every
      missing message is reported, and a gap is reported only if a message to this reader may be missing.
    * When :meth:`end` returns a place, every entry up to this place has been delivered.
    * The cost of a read is proportional to what it returns. Entries for other readers are not visited.
    """

    @abstractmethod
    def read(
        self,
        after: Place,
        limit: int,
        interest: Interest | None = None,
        upto: Place | None = None,
        known: Place | None = None,
    ) -> Page:
        """Read the entries after a place, oldest first; or the gap, if messages are missing there.

        This reads the entries that this process holds, and never blocks. If the place comes from a client, call
        :meth:`catch_up` first.

        :param limit: the maximum number of entries to return.
        :param interest: which entries to read. None: all entries, whatever their address.
        :param upto: do not read past this place. None: read to the end.
        :param known: a place up to which missing messages were reported before, or need not be reported.
        :raises LogError: if the log cannot be read.
        """

    def catch_up(self, place: Place) -> None:  # noqa: B027 - a log in this process's memory has nothing to wait for
        """Wait until this process holds the log up to a place.

        A client may bring a place that is newer than the entries of this process, if another process was faster.

        :raises LogError: if the log cannot be reached.
        """

    @abstractmethod
    def count(self, after: Place, interest: Interest | None = None) -> int:
        """Return how many entries a reader would read after a place. Never blocks, never raises."""

    @abstractmethod
    def is_at_end(self, place: Place) -> bool:
        """Return whether a place is the end of the log. Fast, never blocks, never raises."""

    @abstractmethod
    def is_addressed(self, interest: Interest, after: Place, upto: Place | None = None) -> bool:
        """Return whether there are, or were, messages to the interest's client between two places.

        Messages to a whole zone do not count. Never blocks, never raises.

        :param upto: the second place; None for the end of the log.
        """

    @abstractmethod
    def locate(self, last_event_id: str) -> Place | Gap:
        """Find the place of a client's last event ID: a cursor, or an id that a publisher chose.

        A cursor is only parsed; :meth:`read` checks it. An unknown id gives a gap, not an error.

        :raises LogError: if the log cannot be reached.
        """

    @abstractmethod
    def end(self) -> Place:
        """Return the place of the newest entry delivered in this process."""

    @abstractmethod
    def oldest(self) -> Place:
        """Return the place before the oldest entry that this process holds."""

    @abstractmethod
    def before_last(self, count: int, interest: Interest) -> Place:
        """Return the place after which a reader reads its last ``count`` entries (or all, if there are fewer)."""


class Log(Readable):
    """Keeps packets in order. All readers see the same order.

    Safe to use from any thread. A log starts no thread and opens no connection before :meth:`start`, because servers
    fork. One hub uses one log.

    A log has one or several partitions. Each zone belongs to one partition, and each partition has its own order.
    Messages without a zone are written to all partitions. Readers read what :meth:`open` returns; with one partition,
    this is the log itself.

    The contract of every log, in addition to that of :class:`~ssehub.log.Readable`:

    * After :meth:`start`, ``deliver`` is called once for each new entry, in the order of its partition. With several
      partitions, this begins when :meth:`open` is called for the entry's partition. Two threads never call ``deliver``
      for the same partition at the same time. An entry can be read before it is delivered. ``deliver`` only makes
      notes: it does not block or raise.
    * A packet with a key is written once: while the log holds an entry with the same key and address, it appends no
      other, whichever processes send it. After that entry was dropped, the key is free again.
    * A message that has an id keeps it. A message without an id gets the cursor of its place as its id.
    """

    #: Whether the log is shared with other processes. A shared log accepts packets in processes that do not start it.
    shared = False
    #: The connections of the hub's other processes; None if the log is not shared.
    presence: Presence | None = None

    @property
    def unsent(self) -> int:
        """The number of messages that were accepted, but not sent to the log's server yet."""
        return 0

    @property
    def unreadable(self) -> int:
        """The number of entries that were skipped because another program wrote them, and they cannot be read."""
        return 0

    @property
    def failing(self) -> Mapping[str, str]:
        """The background tasks that fail now, by name, with the reason. They are tried again until they work."""
        return {}

    def lag(self) -> int:
        """Return the number of entries that are in the log, but were not delivered in this process yet.

        :raises LogError: if the log cannot be reached.
        """
        return 0

    @abstractmethod
    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Command]], None]) -> None:
        """Start to deliver entries. Call this once in a process, and again in a forked child or after :meth:`close`.

        Locks, threads and connections from before the call are not used any more.

        :param deliver: called with each entry; returns the number of connections to which the entry is addressed.
        :param broken: called if the next entry of a partition does not follow the last delivered one, because the log
            was lost, rolled back or trimmed. Every reader then has to check its place again. The arguments are the
            partition's new end, and the new commands up to it; other entries up to it are not delivered. ``broken``
            only makes notes, like ``deliver``, and the two never run at the same time for one partition.
        :raises LogError: if the log cannot be reached.
        """

    @abstractmethod
    def append(self, packet: Packet) -> Receipt:
        """Add a packet at the end. When this returns, the log has accepted the packet.

        If the packet has a key that the log knows, nothing is added, and the receipt is that of the first message; see
        :class:`~ssehub.Receipt`.

        :raises LogError: if the log did not accept the packet, or is closed, or is neither started nor shared.
        """

    def append_within(self, packet: Packet, connection: Any) -> Receipt:
        """Add a packet in a transaction of the caller. Readers get it after the commit, and never after a rollback.

        :param connection: the caller's connection to the database of the log.
        :returns: a receipt without an id, because the entry has no place yet.
        :raises TypeError: if this log cannot do this, or not with this connection.
        :raises LogError: if the database did not accept the message, or the log is closed.
        """
        raise TypeError(
            f"a {type(self).__name__} cannot send within a transaction; send after the commit, or use a SQLiteLog or a"
            " PostgresLog in the database of the transaction"
        )

    @abstractmethod
    def close(self, timeout: float | None = None) -> None:
        """Stop delivering, and release threads and connections. Idempotent.

        :param timeout: the maximum number of seconds that this may take; None for the log's default.
        """

    def partitions(self, zones: Sequence[str]) -> tuple[int, ...]:
        """Return the numbers of the partitions that these zones belong to, in order."""
        return (0,)

    def open(self, zones: Sequence[str]) -> Readable:
        """Return a reader's view of some zones. Their partitions are followed until :meth:`release`.

        :raises LogError: if the log cannot be reached.
        """
        return self

    def release(self, zones: Sequence[str]) -> None:
        """Undo one :meth:`open` of the same zones. Never blocks, never raises."""

    def cursor(self, zones: Sequence[str] | All = ALL) -> Place:
        """Return the current end of the log, for the members of some zones or of all zones."""
        return self.end()
