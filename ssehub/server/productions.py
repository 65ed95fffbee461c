"""Productions: the productions that run in this process, and the ends of those whose process was killed."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ssehub.exceptions import HubClosed, LogError
from ssehub.log import Log, Packet, Receipt
from ssehub.log.production import Beginning, Ending, stop_command
from ssehub.logger import logger
from ssehub.server.production import Production


class Productions:
    """The productions of a process. Safe to use from any thread.

    A production is published in the presence before it begins. So if the process is killed at any moment, another
    process finds it there, and writes its end.

    :param log: the log, which is started when a production begins.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        #: The running productions by run.
        self._running: dict[str, Production] = {}
        self._closed = False
        #: Called after each append. It may make the caller wait a moment.
        self.give_way: Callable[[], None] = lambda: None

    def start(
        self, zone: str, key: str, iterator: Iterator[Any], coalesce: float, ttl: float, owner: object
    ) -> tuple[Beginning, bool]:
        """Begin a production, unless the log has one with this key.

        :param owner: an object that must not be garbage collected while the production runs.
        :returns: the production with this key, and whether it has begun now.
        :raises LogError: if the log did not accept it.
        :raises HubClosed: if the hub is closed.
        """
        beginning = Beginning(secrets.token_hex(8), zone, key)
        production = Production(beginning, iterator, coalesce, ttl, self._append, self._forget, owner)
        self._enter(production)
        is_tried = False
        try:
            self._publish(beginning)
            is_tried = True
            first = beginning.first(self._append(beginning.command()).repeats)
        except BaseException:
            if is_tried and self._log.shared:
                production.give_up()
            else:
                self._forget(production)
            raise
        if first.run != beginning.run:
            self._forget(production)
            return first, False
        production.start()
        return first, True

    def stop(self, zone: str) -> None:
        """Stop the productions in a zone, in whatever process they run.

        :raises LogError: if the log did not accept the command. The productions of this process are stopped then.
        """
        try:
            self._log.append(stop_command(zone))
        finally:
            self.stop_here(zone)

    def stop_here(self, zone: str) -> None:
        """Stop the productions in a zone that run in this process. Does not block."""
        for production in self._in(zone):
            production.finish("stopped")

    def ended(self, zone: str) -> None:
        """Note that the log has the end of a production. Does not block."""
        for production in self._in(zone):
            production.abandon()

    def lost(self, productions: Sequence[str]) -> None:
        """Write the ends of productions whose process was killed, each once.

        :raises LogError: if the log did not accept one of them.
        """
        for text in productions:
            try:
                beginning = Beginning(*json.loads(text))
            except (ValueError, TypeError):  # another program wrote it
                logger.debug("a production cannot be read")
                continue
            # If the process was killed before it had begun the production, this begins it, so that it has an end, too.
            first = beginning.first(self._append(beginning.command()).repeats)
            if first.run == beginning.run:
                self._append(Ending.of(beginning.run, beginning.zone, "lost"))

    def close(self, timeout: float) -> None:
        """End all productions as lost, and accept no more.

        :param timeout: seconds to wait until their ends are in the log.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            running = list(self._running.values())
        for production in running:
            production.finish("lost")
        for production in running:
            if not production.wait(max(0.0, deadline - time.monotonic())):
                logger.error("the end of the production %r is not in the log", production.beginning.zone)
                production.abandon()

    def _append(self, packet: Packet) -> Receipt:
        receipt = self._log.append(packet)
        self.give_way()
        return receipt

    def _in(self, zone: str) -> list[Production]:
        if not self._running:
            return []
        with self._lock:
            return [one for one in self._running.values() if one.beginning.zone == zone]

    def _enter(self, production: Production) -> None:
        zone = production.beginning.zone
        self._log.open((zone,))  # this process has to read that others have stopped it
        with self._lock:
            if not self._closed:
                self._running[production.beginning.run] = production
                return
        self._log.release((zone,))
        raise HubClosed("the hub is closed")

    def _publish(self, beginning: Beginning) -> None:
        if self._log.presence is not None:
            self._log.presence.produces(json.dumps(beginning), True)
            if not self._log.presence.settle():
                raise LogError("the production has not begun, because it cannot be published to the other processes")

    def _forget(self, production: Production) -> None:
        with self._lock:
            known = self._running.pop(production.beginning.run, None)
        if known is not None:
            if self._log.presence is not None:
                self._log.presence.produces(json.dumps(production.beginning), False)
            self._log.release((production.beginning.zone,))
