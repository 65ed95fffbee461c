"""Producer: the part of a hub that runs generators whose output outlives the request and its readers."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Iterable
from typing import Any

from ssehub.exceptions import HubClosed
from ssehub.log.packet import check_name
from ssehub.server.settings import check_number
from ssehub.wsgi.hub_core import end_all_productions
from ssehub.wsgi.iteration import close_iterator
from ssehub.wsgi.publisher import Publisher


class Production:
    """A production, as :meth:`Hub.produce` returns it. Thread-safe.

    :ivar zone: the zone to which its readers connect.
    :ivar started: whether this call has started it. False: it was started before, with the same key.
    """

    def __init__(self, hub: Producer, zone: str, started: bool) -> None:
        self._hub = hub
        self.zone: str = zone
        self.started: bool = started

    def __repr__(self) -> str:
        return f"<Production {self.zone!r}, {'started' if self.started else 'not started'} by this call>"

    def stop(self) -> None:
        """Stop the production; see :meth:`Hub.stop`."""
        self._hub.stop(self.zone)


class Producer(Publisher):
    """The methods of a hub for productions. Thread-safe."""

    def produce(
        self,
        zone: str,
        items: Iterable[Any],
        *,
        key: str | None = None,
        ttl: float = 3600.0,
        coalesce: float = 0.03,
    ) -> Production:
        """Run a generator in a thread of this process, and send its items to a zone of the log.

        It does not depend on the request or on readers. Readers connect with ``hub.connect(request, zone=zone,
        since="oldest")``, at any time and at any process that shares the log, and each gets every item once. The last
        event of the zone is ``ssehub.end``. Its data is JSON, and ``reason`` is one of these:

        * ``done``: the generator has ended.
        * ``stopped``: :meth:`stop` was called.
        * ``error``: the generator has raised an exception. The traceback is logged. If it is a
          :class:`~ssehub.ProductionError`, ``text`` is its text. The reason is the same if an item cannot be sent, or
          has more than 1,048,576 characters, or if the production takes longer than ``ttl``.
        * ``lost``: the hub was closed, or the process has ended or was killed, before the generator had ended.

        After this event, the stream ends, if the zone is its only one. A browser that comes back gets a 204, so its
        ``EventSource`` does not reconnect any more.

        If the log cannot be reached for a while, the generator waits, and no item is lost or repeated. The log has to
        hold all items until the last reader has read them.

        :param zone: the name of a zone that no other production uses. It may be a secret: a user who knows it can be
            allowed to read.
        :param items: a generator, or another iterable, of texts, messages, and other values, which are sent as JSON.
        :param key: the production is started once for its key, however many processes try at the same time, as long as
            the log holds its beginning. Otherwise ``items`` is closed, and the production that was started first is
            returned. None: the zone is the key.
        :param ttl: seconds that the production may take.
        :param coalesce: texts that follow each other more quickly than this number of seconds are joined into one
            message. 0: each text is a message.
        :raises LogError: if the log did not accept it. If it is not known whether the log did, the production ends with
            an error.
        :raises HubClosed: after :meth:`close`.
        :raises ValueError: if a name or a number is invalid.
        :raises TypeError: if an argument has the wrong type.
        """
        zone = check_name("zone", zone)
        key = zone if key is None else check_name("key", key)
        check_number("ttl", ttl)
        if coalesce != 0:
            check_number("coalesce", coalesce)
        if isinstance(items, str | bytes) or not isinstance(items, Iterable):
            raise TypeError(f"a production needs a generator, or another iterable of items, not {items!r}")
        own = self._own
        if not own.dispatcher.takes_messages:
            raise HubClosed("the hub is closed")
        own.dispatcher.start()
        _end_productions_at_exit()
        iterator = iter(items)
        first, started = own.dispatcher.productions.start(zone, key, iterator, coalesce, ttl, self)
        if not started:
            close_iterator(iterator)
        return Production(self, first.zone, started)

    def stop(self, zone: str) -> None:
        """Stop a production, in whatever process it runs. Returns before it has ended.

        Its readers get the end with the reason ``stopped``. The generator is closed when it brings its next item: in
        it, ``GeneratorExit`` is raised. If nothing is produced in the zone, nothing happens.

        :param zone: the zone of the production.
        :raises LogError: if the log did not accept the command.
        :raises HubClosed: after :meth:`close`.
        :raises ValueError: if the name is invalid.
        :raises TypeError: if the name is not a text.
        """
        zone = check_name("zone", zone)
        own = self._own
        if not own.dispatcher.takes_messages:
            raise HubClosed("the hub is closed")
        if not self._log.shared:
            own.dispatcher.start()
        own.dispatcher.productions.stop(zone)


@functools.cache
def _end_productions_at_exit() -> None:
    """Write the ends of all productions when the process exits. Registered once per process."""
    atexit.register(end_all_productions)
