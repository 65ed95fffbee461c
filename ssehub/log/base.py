"""Log: the one interface behind which messages are kept in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

from ssehub.log.packet import All, Entry, Order, Packet, Receipt
from ssehub.log.position import Place, Position
from ssehub.log.presence import Presence

#: Why a place in the log could not be followed on from.
#: ``trimmed``: the log has let go of what came next. ``epoch``: another log stands in its place. ``fork``: the log was
#: rolled back and written anew. ``ahead``: the log was rolled back to before that place. ``too_far``: more to catch
#: up on than the hub allows. ``bad_id``: the id names no place this log knows.
Reason = Literal["trimmed", "epoch", "fork", "ahead", "too_far", "bad_id"]


class Gap(NamedTuple):
    """Say that entries are missing: why, how many if that is known, and where to go on."""

    reason: Reason
    #: The number of the log's entries that were let go, whomever they were for; None if nobody can know.
    missed: int | None
    #: What the log still holds and a reader can be given without repeating anything starts after this place.
    place: Place


class Page(NamedTuple):
    """Hold what one read gave: entries in order, or the gap that stands before them."""

    entries: Sequence[Entry]
    #: True if these entries reach to the newest there was.
    level: bool
    gap: Gap | None = None


class Readable(ABC):
    """Be a log, or as much of one as concerns a reader: an order of entries to read on from a place in it.

    Safe to use from any thread. The contract, which ``tests/test_log_contract.py`` checks:

    * :meth:`read` from any place gives exactly the entries after it in order, or one gap: nothing missing is
      passed over in silence, and nothing is called missing that can be read.
    * When :meth:`tail` returns a place, every entry up to it has been delivered.
    """

    @abstractmethod
    def read(self, after: Place, limit: int) -> Page:
        """Read on from a place: at most ``limit`` entries, oldest first, or the gap that stands there.

        :raises LogError: if the log cannot be reached.
        """

    @abstractmethod
    def locate(self, last_event_id: str) -> Place | Gap:
        """Find the place a client's last event ID names: a cursor, or an id that a publisher chose.

        A cursor is only parsed here and judged by :meth:`read`. An id that names nothing is a gap, never an error.

        :raises LogError: if the log cannot be reached.
        """

    @abstractmethod
    def tail(self) -> Place:
        """Return the place of the newest entry delivered in this process."""

    @abstractmethod
    def oldest(self) -> Place:
        """Return the place before the oldest entry that is held."""

    def before_last(self, count: int, wanted: Callable[[Entry], bool]) -> Place:
        """Return the place from which exactly the last ``count`` wanted entries follow (or all that are held)."""
        place = self.oldest()
        recent: list[Place] = []
        while True:
            page = self.read(place, limit=1000)
            if page.gap:  # trimmed while it was read
                place, recent = page.gap.place, []
                continue
            for entry in page.entries:
                if wanted(entry):
                    recent.append(place)
                place = entry.place
            recent = recent[-count:] if count else []
            if page.level:
                return recent[0] if recent else place


class Log(Readable):
    """Keep packets in one order that all readers agree on, or each zone's in one of several.

    Safe to use from any thread. A log starts no thread and opens no connection before :meth:`start`, because servers
    fork. One hub uses one log.

    A log has one lane, or spreads its zones over several; each lane is an order of its own. What is for everyone, or
    for a client in any zone, is in all of them. A log of one lane is its own view.

    The contract every log keeps, besides that of :class:`~ssehub.log.Readable`:

    * ``deliver`` is called once for each entry that is appended from ``start`` on (with several lanes: from when a view
      of its lane is opened), in the order of its lane, never by two threads at a time for the same lane. It only does
      bookkeeping; it neither blocks nor raises.
    * A message that has an id keeps it; one that has none gets the cursor of its place.
    """

    #: True for a log that other processes share: it takes packets without having been started here.
    shared = False
    #: Who is connected to the hub's other processes; None if there are none.
    presence: Presence | None = None

    @property
    def unsent(self) -> int:
        """The number of messages that were taken and wait to be sent to where the log is."""
        return 0

    def lag(self) -> int:
        """Return how many entries there are that were not delivered in this process yet.

        :raises LogError: if the log cannot be reached.
        """
        return 0

    @abstractmethod
    def start(self, deliver: Callable[[Entry], int], broken: Callable[[Position, Sequence[Order]], None]) -> None:
        """Begin to deliver. Called once in a process, and again in a forked child or after :meth:`close`.

        Locks, threads and connections made before are not used after it.

        :param deliver: called with each entry; returns the number of connections it was due to.
        :param broken: called with a lane's new tail when what follows in it does not follow what was delivered, because
            it was lost, rolled back or trimmed: every reader has to judge its place anew. Entries up to the new tail
            are not delivered; the orders among them that are new come along. Like ``deliver`` it only does
            bookkeeping, and neither runs for a lane while the other does.
        :raises LogError: if the log cannot be reached.
        """

    @abstractmethod
    def append(self, packet: Packet) -> Receipt:
        """Add a packet at the end. When this returns, the log has accepted it.

        :raises LogError: if the log has not accepted it, or is not started (and not shared), or closed.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop delivering and release threads and connections. Idempotent."""

    def lanes(self, zones: Sequence[str]) -> tuple[int, ...]:
        """Return the lanes that these zones are in, in order."""
        return (0,)

    @contextmanager
    def view(self, zones: Sequence[str]) -> Iterator[Readable]:
        """Open what the members of these zones read; its lanes are followed until it is left.

        :raises LogError: if the log cannot be reached.
        """
        yield self

    def cursor(self, zones: Sequence[str] | All) -> Place:
        """Return where the log stands now for the members of zones, or of all."""
        return self.tail()
