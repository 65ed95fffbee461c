"""Server-Sent Events for threaded Python: a hub for WSGI applications, and a client for scripts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssehub.client import Backoff, Client, StreamRefused, Subscription, Timeout
    from ssehub.events import Decoder, Message, Received, decode
    from ssehub.exceptions import (
        Backlogged,
        EventTooLarge,
        HubClosed,
        LogError,
        ProductionError,
        SSEHubError,
        SubscriptionClosed,
        UnknownClient,
    )
    from ssehub.log import ALL, Gap, Log, MemoryLog, Packet, Process, Receipt, Session
    from ssehub.log.postgres import PostgresLog
    from ssehub.log.redis import RedisLog
    from ssehub.log.sqlite import SQLiteLog
    from ssehub.server.connection import Connection
    from ssehub.server.history_page import HistoryPage
    from ssehub.wsgi.hub import Hub
    from ssehub.wsgi.hub_core import close_all, end_all_streams
    from ssehub.wsgi.producer import Production
    from ssehub.wsgi.response import event_stream, last_event_id

__version__ = "0.1.0"

__all__ = [
    "ALL",
    "Backlogged",
    "Backoff",
    "Client",
    "Connection",
    "Decoder",
    "EventTooLarge",
    "Gap",
    "HistoryPage",
    "Hub",
    "HubClosed",
    "Log",
    "LogError",
    "MemoryLog",
    "Message",
    "Packet",
    "PostgresLog",
    "Process",
    "Production",
    "ProductionError",
    "Receipt",
    "Received",
    "RedisLog",
    "SQLiteLog",
    "SSEHubError",
    "Session",
    "StreamRefused",
    "Subscription",
    "SubscriptionClosed",
    "Timeout",
    "UnknownClient",
    "close_all",
    "decode",
    "end_all_streams",
    "event_stream",
    "last_event_id",
]


#: The module of each public name. A module is imported when one of its names is first used, for three reasons: a script
#: does not need werkzeug; a server does not need requests, which imports ssl, perhaps before gevent patches it; and
#: redis and psycopg are optional packages.
_HOMES = {
    "ssehub.client": ("Backoff", "Client", "StreamRefused", "Subscription", "Timeout"),
    "ssehub.exceptions": (
        "Backlogged",
        "EventTooLarge",
        "HubClosed",
        "LogError",
        "ProductionError",
        "SSEHubError",
        "SubscriptionClosed",
        "UnknownClient",
    ),
    "ssehub.log": ("ALL", "Gap", "Log", "MemoryLog", "Packet", "Process", "Receipt", "Session"),
    "ssehub.log.postgres": ("PostgresLog",),
    "ssehub.log.redis": ("RedisLog",),
    "ssehub.log.sqlite": ("SQLiteLog",),
    "ssehub.server.connection": ("Connection",),
    "ssehub.server.history_page": ("HistoryPage",),
    "ssehub.wsgi.hub": ("Hub",),
    "ssehub.wsgi.producer": ("Production",),
    "ssehub.wsgi.hub_core": ("close_all", "end_all_streams"),
    "ssehub.wsgi.response": ("event_stream", "last_event_id"),
    "ssehub.events": ("Decoder", "Message", "Received", "decode"),
}


def __getattr__(name: str) -> Any:
    if f"ssehub.{name}" in _HOMES:
        return importlib.import_module(f"ssehub.{name}")
    for home, names in _HOMES.items():
        if name in names:
            found = globals()[name] = getattr(importlib.import_module(home), name)
            return found
    raise AttributeError(f"module 'ssehub' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
