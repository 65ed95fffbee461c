"""Presence: who is connected to a hub of several processes, and where."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ssehub.log.packet import ALL, All


class Session(NamedTuple):
    """Describe a connection of any process: what is known of it from afar. Immutable."""

    #: The session's id.
    id: str
    client_id: str
    zones: tuple[str, ...]
    #: When it was made, in seconds since 1970, by the clock of its machine.
    connected_at: float
    #: What the application has noted about the client.
    metadata: Any
    #: The id of the process that serves it.
    process: str

    @property
    def zone(self) -> str:
        """The first of its zones."""
        return self.zones[0]


class Process(NamedTuple):
    """Describe a process that serves streams. Immutable."""

    id: str
    host: str
    pid: int
    #: Streams it has open.
    connections: int
    #: What :meth:`ssehub.Hub.stats` says there, and ``log_lag``: the entries that the log has and it has not delivered,
    #: None if it cannot be found out. They are from up to a third of the log's ``lease`` ago.
    stats: Mapping[str, Any]


class Here(Protocol):
    """A connection of this process, as far as others are told of it."""

    @property
    def id(self) -> str:
        """The session's id."""

    @property
    def client_id(self) -> str:
        """The client's id."""

    @property
    def zones(self) -> tuple[str, ...]:
        """The names of its zones."""

    @property
    def connected_at(self) -> float:
        """When it was made, in seconds since 1970."""

    @property
    def metadata(self) -> Any:
        """What is noted about the client."""


class Local(Protocol):
    """Say who is connected to this process. Safe to use from any thread; never blocks."""

    def find(self, zone: str | All = ALL, client_id: str | All = ALL) -> Sequence[Here]:
        """Return the connections of a client, a zone, both or neither."""

    def zones(self) -> Mapping[str, int]:
        """Return the zones that have connections, and how many."""

    def count(self, zone: str | All = ALL) -> int:
        """Return the number of connections in a zone, or of all."""


class Presence(ABC):
    """Tell the other processes of a hub who is connected to this one, and hear it of them.

    Safe to use from any thread. A process that is killed is forgotten when its lease has run out. What raises
    :class:`~ssehub.LogError` does so because the store cannot be reached.
    """

    #: The id of this process.
    process: str

    @abstractmethod
    def start(self, local: Local, stats: Callable[[], Mapping[str, Any]]) -> None:
        """Begin to tell the others; who only asks need not.

        :param stats: gives the numbers of this process. It may block.
        """

    @abstractmethod
    def changed(self, one: Here, is_here: bool) -> None:
        """Note that a connection of this process has come or gone. Does not block."""

    @abstractmethod
    def renoted(self, client_id: str) -> None:
        """Note that the metadata of a client of this process was replaced. Does not block."""

    @abstractmethod
    def settle(self) -> bool:
        """Wait until the others can see what has changed so far, but not for long.

        :returns: False if they cannot be told now.
        """

    @abstractmethod
    def others(self, client_id: str | All = ALL, zone: str | All = ALL) -> list[Session]:
        """Return the sessions at other processes: all, or those of a client, a zone, or both.

        :raises LogError: if it cannot be found out.
        """

    @abstractmethod
    def metadata(self, client_id: str) -> list[Any]:
        """Return what each of the other processes that a client is connected to has noted about it.

        The cost does not depend on how many sessions the client has.

        :raises LogError: if it cannot be found out.
        """

    @abstractmethod
    def zones(self) -> dict[str, int]:
        """Return the zones that have connections at other processes, and how many.

        :raises LogError: if it cannot be found out.
        """

    @abstractmethod
    def processes(self) -> list[Process]:
        """Return all processes that serve streams, this one included.

        :raises LogError: if it cannot be found out.
        """

    @abstractmethod
    def close(self, timeout: float) -> None:
        """Have the others forget this process. Idempotent.

        :param timeout: seconds that it may take.
        """
