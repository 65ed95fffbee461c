"""AfterCommit: messages that are sent when a database transaction of the application is committed, and only then.

For logs that cannot write within the transaction themselves. If the process dies between the commit and the sending,
the message is lost; with ``within=`` and a log in the database of the transaction, it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ssehub.exceptions import HubClosed, LogError
from ssehub.log import ALL, All, Packet
from ssehub.logger import logger
from ssehub.server.connection import as_message
from ssehub.wsgi.hub import Hub

#: The key under which a session of SQLAlchemy keeps its messages.
_KEY = "ssehub_after_commit"


def packet_of(
    message: Any,
    zone: str | All = ALL,
    client_id: str | None = None,
    exclude: Iterable[str] = (),
    event: str | None = None,
    id: str | None = None,
    default: Callable[[Any], Any] | None = None,
) -> Packet:
    """Return the packet of a message. The parameters are those of :meth:`ssehub.Hub.broadcast` and ``send``.

    :param client_id: the client; None for all clients.
    :raises TypeError: as for :meth:`ssehub.Hub.broadcast`.
    :raises ValueError: as for :meth:`ssehub.Hub.broadcast`.
    """
    made = as_message(message, event, id, default)
    return Packet(made, zone, client_id, client_id is None, exclude)  # type: ignore[arg-type]


def send_committed(hub: Hub, packet: Packet) -> None:
    """Send a message after its transaction was committed.

    An error is logged, because the caller cannot undo it, and the next messages of the transaction have to be sent.
    """
    try:
        hub.send_message(packet)
    except Exception as error:
        unforeseen = None if isinstance(error, LogError | HubClosed) else error
        logger.error("a message was not sent after its transaction was committed: %s", error, exc_info=unforeseen)


def send_after_commit(session: Any, hub: Hub, packet: Packet) -> None:
    """Send a packet after the commit of a SQLAlchemy session.

    :param session: the session, or a scoped session, whose current session is used.
    :raises TypeError: if ``session`` is neither.
    """
    if hasattr(session, "registry") and callable(session):
        session = session()
    if not hasattr(session, "get_nested_transaction"):
        raise TypeError(f"session must be a session of SQLAlchemy, not {type(session).__name__}")
    AfterCommit.of(session).add(session, lambda: send_committed(hub, packet))


class AfterCommit:
    """The messages that wait for the commit of a SQLAlchemy session. Like a session, it is for one thread at a time.

    A message belongs to the innermost transaction in which it was added. If that is a savepoint, and it is released,
    the message belongs to the transaction around it. If it is rolled back or closed, the message is dropped.

    :param session: a ``sqlalchemy.orm.Session``.
    """

    def __init__(self, session: Any) -> None:
        from sqlalchemy import event

        #: The messages, each with its transaction; None for the next one that the session begins.
        self._waiting: list[tuple[Any, Callable[[], None]]] = []
        self._committed: Any = None
        event.listen(session, "after_commit", self._commit)
        event.listen(session, "after_transaction_end", self._end)

    @classmethod
    def of(cls, session: Any) -> AfterCommit:
        """Return the object of a session."""
        found: AfterCommit | None = session.info.get(_KEY)
        if found is None:
            found = session.info[_KEY] = cls(session)
        return found

    def add(self, session: Any, send: Callable[[], None]) -> None:
        """Call a function after the commit of the session's current transaction, or of its next one."""
        self._waiting.append((session.get_nested_transaction() or session.get_transaction(), send))

    def _commit(self, session: Any) -> None:
        self._committed = session.get_nested_transaction() or session.get_transaction()

    def _end(self, session: Any, transaction: Any) -> None:
        is_root = transaction.parent is None
        if not is_root and not transaction.nested:  # part of a flush
            return
        is_committed, self._committed = self._committed is transaction, None
        waiting, self._waiting = self._waiting, []
        for owner, send in waiting:
            if owner is not transaction and not (is_root and owner is None):
                self._waiting.append((owner, send))
            elif is_committed and is_root:
                send()
            elif is_committed:
                self._waiting.append((_around(transaction), send))


def _around(transaction: Any) -> Any:
    """Return the savepoint or transaction around a savepoint."""
    parent = transaction.parent
    while not parent.nested and parent.parent is not None:
        parent = parent.parent
    return parent
