"""Log: the one interface behind which messages are kept in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from ssehub.log.packet import ALL, All, Command, Entry, Packet, Receipt
from ssehub.log.position import Place, Position
from ssehub.log.presence import Presence

#: Why a reader cannot simply go on from its place. ``trimmed``: the log has dropped messages that came next.
#: ``epoch``: another log stands in its place. ``fork``: the log was rolled back and written anew. ``ahead``: the log
#: was rolled back to before that place. ``too_far``: more to catch up on than the hub allows. ``bad_id``: the id names
#: no place that this log knows.
Reason = Literal["trimmed", "epoch", "fork", "ahead", "too_far", "bad_id"]


class Gap(NamedTuple):
    """Messages are missing: why, how many, and where to go on."""

    reason: Reason
    #: The number of messages that were addressed to this reader and are gone. None if it cannot be known.
    missed: int | None
    #: Go on after this place: what follows it, and is still held, can be read without repeating anything.
    place: Place


class Interest(NamedTuple):
    """What one reader reads: messages to its zones, to its client, and to everyone. Immutable."""

    zones: tuple[str, ...]
    #: The client whose messages are read, too. None: only what every member of the zones gets.
    client_id: str | None = None
    #: Whether messages without a zone are read. Every partition carries them, so a reader of several partitions
    #: reads them from the first one only: see :meth:`in_partitions`.
    zoneless: bool = True

    @property
    def shared(self) -> Interest:
        """The part of it that every member of the zones has."""
        return Interest(self.zones, None, self.zoneless)

    def in_partitions(self, partitions: Sequence[int]) -> dict[int, Interest]:
        """Split it over the partitions of a reader: what is in every partition is read, and counted, once."""
        return {number: self._replace(zoneless=number == partitions[0]) for number in partitions}


class Page(NamedTuple):
    """What one read gave: entries in order and the place they reach, or the gap that stands before them."""

    entries: Sequence[Entry]
    #: Read on from here. It may lie behind the last entry: what lies between is addressed to others.
    place: Place
    #: True if the read reached the end of the log, or the place that it was to end at.
    level: bool
    gap: Gap | None = None


class Readable(ABC):
    """A log, or the partitions of it that concern one reader: an order of entries to read on from a place in it.

    Safe to use from any thread. The contract, which ``tests/contract/test_log_contract.py`` checks:

    * :meth:`read` from any place gives exactly the reader's entries after it in order, or one gap. Nothing that is
      missing is passed over silently, and a gap is reported only if a message to this reader may be missing.
    * When :meth:`end` returns a place, every entry up to it has been delivered.
    * A read costs what it returns: entries for other readers are not visited.
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
        """Read on from a place: at most ``limit`` entries, oldest first, or the gap that stands there.

        It reads what this process holds and never blocks. A place that a client brings may be newer than that: see
        :meth:`catch_up`.

        :param interest: what to read. None: every entry, whatever its address.
        :param upto: do not read past this place. None: to the end.
        :param known: a place up to which missing messages were already reported to the reader, or accepted by it.
        :raises LogError: if the log cannot be read.
        """

    def catch_up(self, place: Place) -> None:  # noqa: B027 - a log that is in this process never has to
        """Wait until this process holds the log up to a place, if that is a newer one than it has delivered.

        :raises LogError: if the log cannot be reached.
        """

    @abstractmethod
    def count(self, after: Place, interest: Interest | None = None) -> int:
        """Return how many entries a reader would read from a place on. It never blocks, and raises nothing."""

    @abstractmethod
    def is_at_end(self, place: Place) -> bool:
        """Return whether no entry can be read after a place. It is quick, never blocks, and raises nothing."""

    @abstractmethod
    def is_addressed(self, interest: Interest, after: Place, upto: Place | None = None) -> bool:
        """Return whether messages for the interest's client alone lie, or lay, between two places.

        :param upto: the second place; None for the end.

        It never blocks, and raises nothing.
        """

    @abstractmethod
    def locate(self, last_event_id: str) -> Place | Gap:
        """Find the place a client's last event ID names: a cursor, or an id that a publisher chose.

        A cursor is only parsed here and judged by :meth:`read`. An id that names nothing is a gap, never an error.

        :raises LogError: if the log cannot be reached.
        """

    @abstractmethod
    def end(self) -> Place:
        """Return the place of the newest entry delivered in this process."""

    @abstractmethod
    def oldest(self) -> Place:
        """Return the place before the oldest entry that is held."""

    @abstractmethod
    def before_last(self, count: int, interest: Interest) -> Place:
        """Return the place from which the last ``count`` entries of a reader follow (or all that are held)."""


class Log(Readable):
    """Keeps packets in one order that all readers agree on, or each zone's in one of several partitions.

    Safe to use from any thread. A log starts no thread and opens no connection before :meth:`start`, because servers
    fork. One hub uses one log.

    A log has one partition, or spreads its zones over several; each partition is an order of its own. Messages without
    a zone are written to all of them. A log of one partition is its own view.

    The contract every log keeps, besides that of :class:`~ssehub.log.Readable`:

    * ``deliver`` is called once for each entry that is appended from ``start`` on (with several partitions: from when a
      view of the entry's partition is opened), in the order of its partition, never by two threads at a time for the
      same partition. An entry can be read before it is delivered. ``deliver`` only does bookkeeping; it neither blocks
      nor raises.
    * A message that has an id keeps it; one without an id gets the cursor of its place.
    """

    #: True for a log that other processes share: it takes packets without having been started here.
    shared = False
    #: Who is connected to the hub's other processes; None if there are no other processes.
    presence: Presence | None = None

    @property
    def unsent(self) -> int:
        """The number of messages that were accepted and still wait to be sent to the log's server."""
        return 0

    @property
    def unreadable(self) -> int:
        """The number of entries that were skipped because others have written them, and they cannot be read."""
        return 0

    @property
    def failing(self) -> Mapping[str, str]:
        """What fails in the background now, by its name, and why. It is tried again until it works."""
        return {}

    def lag(self) -> int:
        """Return how many entries of the log were not delivered in this process yet.

        :raises LogError: if the log cannot be reached.
        """
        return 0

    @abstractmethod
    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Command]], None]) -> None:
        """Begin to deliver. Called once in a process, and again in a forked child or after :meth:`close`.

        Locks, threads and connections made before are not used after it.

        :param deliver: called with each entry; returns the number of connections it was addressed to.
        :param broken: called with a partition's new end when what follows in it does not follow what was delivered,
            because it was lost, rolled back or trimmed: every reader has to judge its place anew. Entries up to the new
            end are not delivered; the commands among them that are new come along. Like ``deliver`` it only does
            bookkeeping, and neither runs for a partition while the other does.
        :raises LogError: if the log cannot be reached.
        """

    @abstractmethod
    def append(self, packet: Packet) -> Receipt:
        """Add a packet at the end. When this returns, the log has accepted it.

        :raises LogError: if the log has not accepted it, or is not started (and not shared), or closed.
        """

    @abstractmethod
    def close(self, timeout: float | None = None) -> None:
        """Stop delivering and release threads and connections. Idempotent.

        :param timeout: seconds that it may take; None for the log's own limit.
        """

    def partitions(self, zones: Sequence[str]) -> tuple[int, ...]:
        """Return the partitions that these zones are in, in order."""
        return (0,)

    def open(self, zones: Sequence[str]) -> Readable:
        """Open what the members of these zones read; its partitions are followed until :meth:`release`.

        :raises LogError: if the log cannot be reached.
        """
        return self

    def release(self, zones: Sequence[str]) -> None:
        """Undo one :meth:`open` of the same zones. It neither blocks nor raises."""

    def cursor(self, zones: Sequence[str] | All = ALL) -> Place:
        """Return where the log stands now for the members of zones, or of all."""
        return self.end()
