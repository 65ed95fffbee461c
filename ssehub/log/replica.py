"""Replica: the newest entries of a shared log, or of one of its partitions, in the memory of this process.

There are three positions in a shared log. The *end of the log* is the newest entry in the store that the processes
share. The *end of the history* is the newest entry that this process has read. ``end()`` is the newest entry that this
process has also delivered.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator

from ssehub.exceptions import LogError
from ssehub.log.base import Gap
from ssehub.log.held import Held
from ssehub.log.history import History
from ssehub.log.packet import Command, Entry
from ssehub.log.position import Place, Position, parse_parts
from ssehub.log.progress import Progress
from ssehub.logger import logger


class Broken(Exception):
    """The next entry of the log does not follow the entry that was read last."""


class Replica(Held):
    """The newest entries of a shared log. The follower adds entries, and any thread can read them.

    :param number: the number of the partition.
    :param timeout: the maximum number of seconds that readers wait until this process has read all entries.
    :param errors: the exceptions that :meth:`fetch_end` and :meth:`fetch` raise if the store cannot be reached.
    """

    def __init__(self, number: int, timeout: float, errors: tuple[type[Exception], ...]) -> None:
        self.number = number
        self._timeout = timeout
        self._errors = errors
        self._history: History | None = None
        self._delivered: Position
        #: The threads that wait until entries are read or delivered.
        self.progress: Progress = Progress()
        #: The number of entries that ssehub did not write, or that cannot be read.
        self.unreadable: int = 0
        self._asking = threading.Lock()
        #: When the end of the log was last asked for (``time.monotonic()``), and why this process has not read up to
        #: it.
        self._asked = 0.0
        self._answer: Exception | None = None

    @abstractmethod
    def fetch_end(self) -> Position:
        """Ask the store for the end of the log. If there is no log, create it. Any thread may call this."""

    # For readers

    @property
    def is_open(self) -> bool:
        """Whether the entries were read, so that there is a history."""
        return self._history is not None

    @property
    def history(self) -> History:
        """The history: the entries that this process holds."""
        if self._history is None:
            raise LogError("the log is not followed")
        return self._history

    def catch_up(self, place: Place) -> None:
        """Wait until this process has read the log up to a place. The place may come from a faster process.

        :raises LogError: if the store cannot be reached, or this process still lags behind after the timeout.
        """
        if not self.history.holds(place.parts[0]):
            self._catch_up()

    def locate(self, last_event_id: str) -> Position | Gap:
        """Find the place of an id. If the id is unknown, first wait until this process has read the whole log.

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

    def lag(self) -> int:
        """Ask the store how many entries of the log were not delivered in this process yet."""
        delivered, end = self._delivered, self.fetch_end()
        return max(0, end.offset - delivered.offset) if end.epoch == delivered.epoch else end.offset

    # For the follower

    def open_with(self, history: History, began: Callable[[Position], None]) -> None:
        """Set the first history.

        :param began: called with the end of the history, before other threads can use it.
        """
        began(history.end)
        self._delivered = history.end
        self._history = history

    def add(self, entry: Entry, deliver: Callable[[Entry], int]) -> int:
        """Add an entry that follows the end of the history, and deliver it. Return the number of its connections."""
        self.history.keep(entry)
        queued = deliver(entry)
        self._delivered = entry.position
        if self.progress.concerns(entry.position.nonce):
            self.progress.tell({entry.position.nonce: queued})
        return queued

    def replace(self, history: History, broken: Callable[[Position, list[Command]], None]) -> None:
        """Replace the history, because the log does not continue at the end of the old one.

        :param broken: called with the new end, and the new commands.
        """
        new = list(_new_in(history, self.history))
        self._history, self._delivered = history, history.end
        broken(history.end, [entry.packet for entry in new if isinstance(entry.packet, Command)])
        self.progress.tell({entry.position.nonce: 0 for entry in new})

    def close(self) -> None:
        """Wake all waiting threads. The history can still be read."""
        self.progress.close()

    def count_unreadable(self, what: str) -> None:
        """Count an entry that another program has written. The first one is logged."""
        self.unreadable += 1
        if self.unreadable == 1:
            logger.error("%s was not written by ssehub, and is skipped", what)

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
        """Wait until this process has read up to the current end of the log. Return None, or why it did not."""
        deadline = time.monotonic() + self._timeout
        while (left := deadline - time.monotonic()) > 0 and not self.progress.closed:
            try:
                end = self.fetch_end()
            except self._errors as error:
                return error
            if self._await(end, left):
                return None
        return LogError("the log is closed") if self.progress.closed else TimeoutError("this process lags behind it")

    def _await(self, end: Position, timeout: float) -> bool:
        """Wait until this process has read up to a place. Return whether it has.

        The wait also ends when the whole log is read again: a log that was rolled back may not have this place.
        """
        history = self.history
        self.progress.wait_for(lambda: self.history is not history or history.holds(end), timeout)
        return self.history.holds(end)


def _new_in(history: History, old: History) -> Iterator[Entry]:
    """Yield the entries that are in the new history of a log, but not in the old one."""
    end = old.end
    for entry in history.read(history.oldest(), history.end.offset).entries:
        place = entry.position
        if place.epoch > end.epoch or (place.epoch == end.epoch and not old.holds(place)):
            yield entry
