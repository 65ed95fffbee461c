"""Recorder: what the clients of a hub were sent, told from the log, without any client being there."""

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

#: Seconds between two looks at the log: another process, or another thread, may write to it.
_LOOK = 0.005
#: Bytes of an event that is read back; there is no stranger here to be afraid of.
_ANY_SIZE = 1 << 40


class Recorder:
    """Tell what was sent through a hub from a moment on. Safe to use from any thread.

    Nothing is put in the hub's place. A message counts when the log has it, and who gets it is found out by what a
    stream does: it is read by a connection that no client has, and that the hub does not know of.

    What was sent past the log, with :meth:`ssehub.Connection.send`, is not seen here, but by
    :func:`~ssehub.testing.stream`.

    :param hub: any hub, one with a shared log too.
    :raises TypeError: if it is something else.
    """

    def __init__(self, hub: Hub) -> None:
        if not isinstance(hub, Hub):
            raise TypeError(f"a Hub is needed, not {type(hub).__name__}; an extension has it as its attribute hub")
        self._hub = hub
        self.clear()

    def clear(self) -> None:
        """Forget what was sent so far."""
        self._cursor = self._hub.cursor()

    def events(
        self, zone: str | Sequence[str] | All = ALL, client_id: str | None = None, *, session_id: str | None = None
    ) -> list[Received]:
        """Return what a client would have received, had it followed from the beginning, in order.

        They are messages as a client has them, with their ids. What the log has let go of is a gap, as for a client
        that was away: an event ``ssehub.gap``.

        :param zone: the zones that it follows: a name, or several. ALL: every zone that something was sent to.
        :param client_id: who it is; None for one without a name, who gets what is for everybody.
        :param session_id: that of a stream, to see what was sent with ``exclude``.
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
        """Return everything that was sent and that the log still holds, with its address, in order.

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
        """Wait until a client would have received so many events, and return them all; see :meth:`events`.

        :param timeout: seconds to wait.
        :raises TimeoutError: if there are fewer then; it says which.
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
                if entry.packet.zone is not ALL or not entry.position.partition:  # those to all are in every partition
                    entries.append(entry)
            if page.level:
                return entries


class RecordedHub(Hub, Recorder):
    """Be a hub, and tell what was sent through it since it was made.

    Its arguments are those of :class:`~ssehub.Hub`.
    """

    def __init__(self, log: Log | None = None, **options: Any) -> None:
        Hub.__init__(self, log, **options)
        Recorder.__init__(self, self)


@contextmanager
def capture(hub: Hub) -> Iterator[Recorder]:
    """Record what an application sends through its own hub, from here to wherever it is looked at.

    :param hub: the application's.
    """
    yield Recorder(hub)


def _names(zone: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(check_name("zone", name) for name in ((zone,) if isinstance(zone, str) else zone))


def _chunks(reader: Reader) -> Iterator[bytes]:
    """Take what a reader is due. The application's hook is not called: there is no client."""
    while found := reader.take():
        yield reader.report(found) if isinstance(found, Gap) else found
