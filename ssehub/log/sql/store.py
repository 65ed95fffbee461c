"""Store: what a log in a SQL database needs of the database. There is one subclass for each database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from ssehub.log.position import Position
from ssehub.log.sql.row import Found, Letter

#: A statement with ``?`` for each parameter, and the parameters of each execution.
Statement = tuple[str, Sequence[Sequence[Any]]]


class Store(ABC):
    """The tables of a log in a database, and the wake-ups between processes.

    Methods may be called from any thread, except where noted. They raise the exceptions in ``errors``, or
    :class:`~ssehub.LogError` if the cause is known. Connections are opened at the first use.
    """

    #: The name of the database in log messages.
    name: str
    #: The exceptions that the methods raise.
    errors: tuple[type[Exception], ...]
    #: The beginning of the names of the log's tables.
    prefix: str
    #: A SQL expression for the current time of the shared clock, in seconds since 1970.
    now: str

    @property
    def writable(self) -> bool:
        """Whether the database that is followed accepts writes. A standby does not."""
        return True

    @abstractmethod
    def append(self, letter: Letter, deadline: float) -> tuple[Position, str]:
        """Append an entry. Return its position, and the nonce of the entry before.

        If there is an entry with the same key, append nothing, and return those of that entry. It has another nonce.

        :param deadline: when the last attempt must have ended (``time.monotonic()``).
        :raises LogError: if the entry was not accepted, or it is not known whether it was.
        """

    @abstractmethod
    def append_within(self, letter: Letter, connection: Any) -> None:
        """Append an entry in the caller's transaction, unless there is one with the same key.

        :raises TypeError: if ``connection`` is not a connection to a database of this kind.
        """

    @abstractmethod
    def end(self) -> Position:
        """Return the end of the log. Create the tables first, if necessary."""

    @abstractmethod
    def read(self, after: int | None) -> Found | None:
        """Read the rows after a number, the oldest first, up to a limit. Only the follower may call this.

        :param after: None to read all rows.
        :returns: None if nothing was written since the last call with the same result.
        """

    @abstractmethod
    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT statement, with ``?`` for each parameter."""

    @abstractmethod
    def execute(self, statements: Iterable[Statement]) -> list[int]:
        """Execute statements in one transaction. Return for each how many rows it has changed."""

    @abstractmethod
    def wake(self, own: bool) -> None:
        """Wake the followers of other processes. Never blocks, never raises.

        :param own: whether to wake the follower of this process, too.
        """

    @abstractmethod
    def wait(self, idle: bool) -> None:
        """Wait until the follower is woken, or has to look by itself. Only the follower may call this.

        :param idle: whether the follower found nothing when it looked last.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """End the follower's wait, because the log is being closed."""

    @abstractmethod
    def migration(self, role: str | None = None) -> str:
        """Return the SQL that creates the tables, if they do not exist.

        :param role: a user of the database who gets the rights that the application needs.
        :raises ValueError: if there is a role, and the database has no users.
        """

    @abstractmethod
    def migrate(self, role: str | None = None) -> None:
        """Create the tables, unless they exist; see :meth:`migration`."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections. Later calls of other methods open them again."""
