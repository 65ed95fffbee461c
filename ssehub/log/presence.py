"""Presence: how the processes of a hub tell each other about their connections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ssehub.log.packet import ALL, All


class Session(NamedTuple):
    """A connection of any process of the hub, as other processes see it. Immutable."""

    #: The session's id.
    id: str
    client_id: str
    zones: tuple[str, ...]
    #: When the connection was made, in seconds since 1970, by the clock of its machine.
    connected_at: float
    #: The client's metadata, which the application has set.
    metadata: Any
    #: The id of the process that serves the connection.
    process: str

    @property
    def zone(self) -> str:
        """The first of the session's zones."""
        return self.zones[0]


class Process(NamedTuple):
    """A process that serves streams. Immutable."""

    id: str
    host: str
    pid: int
    #: The number of its open streams.
    connections: int
    #: The result of :meth:`ssehub.Hub.stats` in that process, and ``log_lag``: the number of entries in the log that it
    #: has not delivered yet, or None if unknown. These numbers may be old, by up to a third of the log's ``lease``.
    stats: Mapping[str, Any]


class Here(Protocol):
    """A connection of this process: the attributes that other processes can see."""

    @property
    def id(self) -> str:
        """The session's id."""

    @property
    def client_id(self) -> str:
        """The client's id."""

    @property
    def zones(self) -> tuple[str, ...]:
        """The names of the connection's zones."""

    @property
    def connected_at(self) -> float:
        """When the connection was made, in seconds since 1970."""

    @property
    def metadata(self) -> Any:
        """The client's metadata."""


class Local(Protocol):
    """The connections of this process. Safe to use from any thread; never blocks."""

    def find(self, zone: str | All = ALL, client_id: str | All = ALL) -> Sequence[Here]:
        """Return the connections of a client, in a zone, or both. Without arguments, return all."""

    def zones(self) -> Mapping[str, int]:
        """Return the zones that have connections, with the number of connections in each."""

    def count(self, zone: str | All = ALL) -> int:
        """Return the number of connections in a zone, or in all zones."""


class Presence(ABC):
    """The connections of a hub's other processes. It also tells these processes about the connections of this one.

    Safe to use from any thread. If a process is killed, it is forgotten when its lease has expired.
    """

    #: The id of this process.
    process: str

    @abstractmethod
    def start(
        self, local: Local, stats: Callable[[], Mapping[str, Any]], lost: Callable[[Sequence[str]], None]
    ) -> None:
        """Start to publish the connections of this process. Processes that only ask about others need not call this.

        :param stats: returns the statistics of this process. It may block.
        :param lost: called with the productions of a process whose lease has expired. It may be called more than once
            for the same process, and in several processes.
        """

    @abstractmethod
    def changed(self, one: Here, is_here: bool) -> None:
        """Publish that a connection of this process was opened or closed. Does not block."""

    @abstractmethod
    def renoted(self, client_id: str) -> None:
        """Publish that the metadata of a client of this process was replaced. Does not block."""

    @abstractmethod
    def produces(self, production: str, is_running: bool) -> None:
        """Publish that a production of this process has begun or ended. Does not block.

        :param production: a text that describes it, for ``lost``.
        """

    @abstractmethod
    def settle(self) -> bool:
        """Wait a short time until the other processes can see all changes so far.

        :returns: False if they cannot see them yet.
        """

    @abstractmethod
    def others(self, client_id: str | All = ALL, zone: str | All = ALL) -> list[Session]:
        """Return the sessions of other processes: all, or those of a client, in a zone, or both.

        :raises LogError: if the store cannot be reached.
        """

    @abstractmethod
    def metadata(self, client_id: str) -> list[Any]:
        """Return a client's metadata at each of the other processes to which it is connected.

        The cost does not depend on the number of the client's sessions.

        :raises LogError: if the store cannot be reached.
        """

    @abstractmethod
    def zones(self) -> dict[str, int]:
        """Return the zones that have connections at other processes, with the number of connections in each.

        :raises LogError: if the store cannot be reached.
        """

    @abstractmethod
    def processes(self) -> list[Process]:
        """Return all processes that serve streams, including this one.

        :raises LogError: if the store cannot be reached.
        """

    @abstractmethod
    def close(self, timeout: float) -> None:
        """Remove this process from the store. Idempotent.

        :param timeout: the maximum number of seconds that this may take.
        """
