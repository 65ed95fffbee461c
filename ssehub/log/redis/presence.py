"""RedisPresence: the presence of a hub on Redis. Its keys are described in :mod:`ssehub.log.redis.ledger`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssehub.log.packet import ALL, All
from ssehub.log.presence import Here, Process, Session
from ssehub.log.redis.ledger import Ledger
from ssehub.log.redis.link import ERRORS, Client
from ssehub.log.redis.pages import PAGE, Pages, read_client, read_everybody, read_metadata, record
from ssehub.log.shared_presence import Changes, SharedPresence, asking, process_of

#: The number of other processes whose leases are checked each time the own lease is renewed.
_NEIGHBOURS = 3


class RedisPresence(SharedPresence):
    """A hub's presence on Redis; see :class:`~ssehub.log.presence.Presence`.

    :param connect: returns the client that sends the commands. It must not retry them itself.
    :param name: the name of the log.
    :param lease: seconds after which a process that does not renew its lease is forgotten.
    """

    def __init__(self, connect: Callable[[], Client], name: str, lease: float) -> None:
        super().__init__("Redis", lease, ERRORS)
        self._ledger = Ledger(connect, name, lease)
        #: The pages of clients with many sessions. Used only in the thread.
        self._pages: dict[str, Pages] = {}

    def others(self, client_id: str | All = ALL, zone: str | All = ALL) -> list[Session]:
        """Return the sessions of other processes; see :meth:`Presence.others`."""
        with asking():
            if client_id is ALL:
                everybody = self._ledger.clients(but=self.process)
                sessions = [session for one in everybody for session in read_everybody(one.process, one.part)]
            else:
                found = self._ledger.look(client_id, but=self.process)
                sessions = [one for process, *pages in found for one in read_client(process, client_id, *pages)]
        return [one for one in sessions if zone is ALL or zone in one.zones]

    def metadata(self, client_id: str) -> list[Any]:
        """Return a client's metadata at each of the other processes to which it is connected."""
        with asking():
            found = self._ledger.look(client_id, self.process, first_only=True)
            return [metadata for _, page, _ in found for metadata in read_metadata(page)]

    def zones(self) -> dict[str, int]:
        """Return the zones that have connections at other processes, with the number of connections in each."""
        zones: Counter[str] = Counter()
        with asking():
            for one in self._ledger.zones(but=self.process):
                zones.update(_counts(one.part))
        return dict(zones)

    def processes(self) -> list[Process]:
        """Return all processes that serve streams."""
        with asking():
            return [
                process
                for one in self._ledger.processes()
                if (process := process_of(one.process, one.alive)) is not None
            ]

    # The methods below run in the thread.

    def write(self, itself: str, productions: str, changes: Changes, zones: Mapping[str, int], anew: bool) -> bool:
        """Write changes of this process, and renew its lease; see :meth:`SharedPresence.write`."""
        if anew:
            self._pages.clear()
        records: dict[str, str] = {}
        for client_id, sessions in changes.items():
            records |= self._fields(client_id, sessions)
        return self._ledger.tell(self.process, itself, records, zones, anew, productions)

    def expired(self) -> list[tuple[str, str]]:
        """Return those of some processes, chosen at random, whose leases have expired, with their productions."""
        return self._ledger.expired(_NEIGHBOURS)

    def delete_expired(self, processes: Sequence[str]) -> None:
        """Delete the keys of processes, if their leases have expired."""
        for process in processes:
            self._ledger.reap(process)

    def delete_own(self) -> None:
        """Delete the keys of this process."""
        self._ledger.reap(self.process, is_gone=True)

    def _fields(self, client_id: str, sessions: Mapping[str, Here | None]) -> dict[str, str]:
        """Return the fields to write for a client whose sessions have changed."""
        assert self._local is not None
        pages = self._pages.get(client_id)
        if pages is not None:
            fields = pages.change(sessions)
            if len(pages) > PAGE // 2:
                return fields
            del self._pages[client_id]
            fields = pages.none()
        else:
            fields = {}
        found = self._local.find(client_id=client_id)
        if len(found) > PAGE:
            pages = self._pages[client_id] = Pages(client_id, found)
            return fields | pages.all()
        return {**fields, client_id: record(client_id, found, found[0].metadata) if found else ""}


def _counts(part: Mapping[bytes, bytes]) -> dict[str, int]:
    """Decode the number of connections by zone. Skip values that another program has written."""
    counts = {zone.decode(errors="replace"): count for zone, count in part.items()}
    return {zone: int(count) for zone, count in counts.items() if count.isdigit()}
