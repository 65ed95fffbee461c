"""Recorder: the messages that the clients of a hub would have received, read from the log without any client."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ssehub.events import Received, decode
from ssehub.log import ALL, All, Command, Entry, Gap, Interest, Log, Packet
from ssehub.log.packet import check_name
from ssehub.server.page_cache import PageCache
from ssehub.server.reader import Reader
from ssehub.server.start_position import StartPosition
from ssehub.wsgi.hub import Hub

#: Seconds between two reads of the log, because other processes and threads may write to it.
_LOOK = 0.005
#: Maximum size of an event in bytes: practically unlimited, because the data is the test's own.
_ANY_SIZE = 1 << 40


class Recorder:
    """Records the messages that are sent through a hub. Thread-safe.

    The hub is not replaced. The recorder reads the log exactly as a stream does, through a connection that has no
    client and is not registered with the hub. So it shows the messages that a client would have received.

    Messages from :meth:`ssehub.Connection.send` are not in the log. Use :func:`~ssehub.testing.stream` to see them.

    :param hub: any hub, including one with a shared log.
    :raises TypeError: if it is not a hub.
    """

    def __init__(self, hub: Hub) -> None:
        if not isinstance(hub, Hub):
            raise TypeError(f"expected a Hub, not {type(hub).__name__}; an extension has it as its attribute hub")
        self._hub = hub
        self.clear()

    def clear(self) -> None:
        """Forget all messages so far."""
        self._cursor = self._hub.cursor()

    def events(
        self, zone: str | Sequence[str] | All = ALL, client_id: str | None = None, *, session_id: str | None = None
    ) -> list[Received]:
        """Return the events that a client would have received if it had followed from the beginning, in order.

        They are messages as a client receives them, with their ids. Messages that the log has dropped appear as a gap,
        an event ``ssehub.gap``.

        :param zone: the zones that the client follows: a name, or several. ALL: all zones to which messages were sent.
        :param client_id: the id of the client; None for a client without an id, which only gets messages to all.
        :param session_id: the session id of a stream, to see the effect of ``exclude``.
        :raises LogError: if the log cannot be read.
        """
        zones = self._all_zones() if zone is ALL else _names(zone)
        log = self._hub._log
        session = session_id or secrets.token_hex(8)
        interest = Interest(zones, client_id or session)
        view = log.open(zones)
        try:
            start = StartPosition(self._cursor).find(view, interest)
            reader = Reader(view, PageCache(), interest, session, start, None)
            return list(decode(_chunks(reader), max_event_size=_ANY_SIZE))
        finally:
            log.release(zones)

    def packets(self) -> list[Packet]:
        """Return all sent packets that are still in the log, in order.

        :raises LogError: if the log cannot be read.
        """
        return [entry.packet for entry in self._entries() if not isinstance(entry.packet, Command)]

    def wait_for(
        self,
        count: int = 1,
        *,
        zone: str | Sequence[str] | All = ALL,
        client_id: str | None = None,
        timeout: float = 5.0,
    ) -> list[Received]:
        """Wait until a client would have received *count* events, and return all its events; see :meth:`events`.

        :param timeout: seconds to wait.
        :raises TimeoutError: if there are fewer events then. The text lists them.
        :raises LogError: if the log cannot be read.
        """
        deadline = time.monotonic() + timeout
        while len(found := self.events(zone, client_id)) < count:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"waited {timeout} s for {count} events, but there are {len(found)}: {found}")
            time.sleep(_LOOK)
        return found

    def _all_zones(self) -> tuple[str, ...]:
        named = [packet.zone for packet in self.packets() if isinstance(packet.zone, str)]
        return tuple(dict.fromkeys(named)) or ("default",)

    def _entries(self) -> list[Entry]:
        log, entries = self._hub._log, list[Entry]()
        place = log.locate(self._cursor)
        while True:
            page = log.read(place.place if isinstance(place, Gap) else place, 1000)
            if page.gap:
                place = page.gap
                continue
            for entry in page.entries:
                place = entry.place
                if entry.packet.zone is not ALL or not entry.position.partition:  # each partition has them
                    entries.append(entry)
            if page.level:
                return entries


class RecordedHub(Hub, Recorder):
    """A hub that records the messages sent through it.

    Its arguments are those of :class:`~ssehub.Hub`.
    """

    def __init__(self, log: Log | str | None = None, **options: Any) -> None:
        Hub.__init__(self, log, **options)
        Recorder.__init__(self, self)


@contextmanager
def capture(hub: Hub) -> Iterator[Recorder]:
    """Record the messages that an application sends through its hub from now on.

    :param hub: the hub of the application.
    """
    yield Recorder(hub)


def _names(zone: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(check_name("zone", name) for name in ((zone,) if isinstance(zone, str) else zone))


def _chunks(reader: Reader) -> Iterator[bytes]:
    """Yield the data that a reader would be sent. The application's hook is not called, because there is no client."""
    while found := reader.take():
        yield reader.report(found) if isinstance(found, Gap) else found
