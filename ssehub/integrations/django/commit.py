"""Commit: sends a message after a database transaction of Django."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from django.db import transaction

from ssehub.integrations.after_commit import packet_of, send_committed
from ssehub.integrations.django.site import hub
from ssehub.log import ALL, All


def after_commit(
    message: Any,
    *,
    using: str | None = None,
    zone: str | All = ALL,
    client_id: str | None = None,
    exclude: Iterable[str] = (),
    event: str | None = None,
    id: str | None = None,
    default: Callable[[Any], Any] | None = None,
) -> None:
    """Send a message when the current transaction is committed. After a rollback it is not sent.

    Without a transaction it is sent at once. If the process dies between the commit and the sending, the message is
    lost. If the log is in the same database, ``within`` of :meth:`ssehub.Hub.broadcast` avoids this.

    :param using: the name of the database; None for the default one.
    :param client_id: the client that gets the message; None for all clients. The other parameters are those of
        :meth:`ssehub.Hub.broadcast`.
    :raises TypeError: as for :meth:`ssehub.Hub.broadcast`.
    :raises ValueError: as for :meth:`ssehub.Hub.broadcast`.
    """
    packet = packet_of(message, zone, client_id, exclude, event, id, default)
    transaction.on_commit(functools.partial(send_committed, hub(), packet), using=using)
