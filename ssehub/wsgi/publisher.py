"""Publisher: the part of a hub that sends messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ssehub.exceptions import HubClosed, UnknownClient
from ssehub.log import ALL, All, Packet, Receipt
from ssehub.log.packet import warn_of_type
from ssehub.server.connection import as_message
from ssehub.wsgi.directory import Directory
from ssehub.wsgi.warnings import note_sent


class Publisher(Directory):
    """Sends messages to clients. :class:`ssehub.Hub` adds the methods for their streams."""

    def broadcast(
        self,
        message: Any,
        *,
        zone: str | All = ALL,
        exclude: Iterable[str] = (),
        event: str | None = None,
        id: str | None = None,
        default: Callable[[Any], Any] | None = None,
        key: str | None = None,
        within: Any = None,
    ) -> Receipt:
        """Send a message to all clients, or to the clients in a zone.

        :param message: a text, any other value (a dict, a list, a number), which is sent as JSON, or a
            :class:`Message`.
        :param zone: the name of the zone, or :data:`ALL` for all clients.
        :param exclude: ids of sessions that do not get the message.
        :param event: the event type, ``"message"`` by default. A :class:`Message` has its own.
        :param id: the event id. By default the log assigns one. A :class:`Message` has its own.
        :param default: called with each value that JSON cannot represent, such as a ``datetime``, and returns one that
            it can. ``default=str`` sends such values as text. See :meth:`Message.from_json`.
        :param key: a name for the message, such as ``"order-17-shipped"``. It is written once for its zone and its key,
            however often and from however many processes it is sent, as long as the log holds it. The receipt is that
            of the first message, and ``receipt.repeats`` is that message. None: written each time.
        :param within: send the message in a transaction of your application: its connection to the database of the log,
            which has to be a :class:`~ssehub.SQLiteLog` or :class:`~ssehub.PostgresLog`. Clients get the message after
            the commit, in the order of the commits, and never after a rollback or a crash. Pass a connection or cursor
            of ``sqlite3`` or psycopg, Django's ``connection``, or a session or connection of SQLAlchemy. The receipt
            has no id, because the message has no place in the log yet. None: send the message now.
        :raises TypeError: if the message is None, or contains a value that JSON cannot represent, or the log cannot
            send within this transaction.
        :raises ValueError: if the message cannot be sent, or a name is invalid.
        :raises HubClosed: after :meth:`close`.
        :raises LogError: if the log did not accept the message, or it is not known whether it did. If the log has
            several partitions, some of them may have accepted it.
        """
        made = as_message(message, event, id, default)
        packet = Packet(made, zone, broadcast=True, exclude=exclude, key=key)  # type: ignore[arg-type]
        return self.send_message(packet, within)

    def send(
        self,
        client_id: str,
        message: Any,
        *,
        zone: str | All = ALL,
        exclude: Iterable[str] = (),
        require: bool = False,
        event: str | None = None,
        id: str | None = None,
        default: Callable[[Any], Any] | None = None,
        key: str | None = None,
        within: Any = None,
    ) -> Receipt:
        """Send a message to all sessions of a client, or to its sessions in a zone.

        If the client is not connected, it gets the message from the log when it reconnects with its last event id.

        :param exclude: ids of sessions that do not get the message, for example the sender's own.
        :param key: as in :meth:`broadcast`. It is the key of this client and this zone.
        :param require: True to raise an error if the client is not connected. The other parameters are those of
            :meth:`broadcast`.
        :raises UnknownClient: with ``require``, if the client is not connected to any process that shares the log.
        :raises TypeError: if the client id is not a text, or the message is None, or it contains a value that JSON
            cannot represent.
        :raises ValueError: if the message cannot be sent, or a name is invalid.
        :raises HubClosed: after :meth:`close`.
        :raises LogError: if the log did not accept the message.
        """
        _check_one(client_id)
        made = as_message(message, event, id, default)
        packet = Packet(made, zone, client_id, exclude=exclude, key=key)  # type: ignore[arg-type]
        if require and not self.is_present(client_id, zone):
            raise UnknownClient(f"client {client_id!r} is not connected")
        return self.send_message(packet, within)

    def send_message(self, packet: Packet, within: Any = None) -> Receipt:
        """Send a packet. :meth:`broadcast` and :meth:`send` call this.

        :param within: see :meth:`broadcast`.
        """
        own = self._own
        if not own.dispatcher.takes_messages:
            raise HubClosed("the hub is closed")
        if not isinstance(packet, Packet):
            raise TypeError(f"a Packet is needed, not {type(packet).__name__}")
        warn_of_type(packet.message)
        if within is not None:
            return self._log.append_within(packet, within)
        if not self._log.shared and not own.dispatcher.is_started:
            note_sent()
            own.dispatcher.start()
        receipt = self._log.append(packet)
        own.streams.give_way()
        return receipt


def _check_one(client_id: object) -> None:
    if client_id is None or client_id is ALL:
        raise TypeError(f"client_id is {client_id!r}; to send to everyone, use hub.broadcast(message)")
