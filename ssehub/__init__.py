"""Server-Sent Events for threaded Python: a hub for WSGI applications, and what scripts need to follow one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssehub.exceptions import (
    Backlogged,
    EventTooLarge,
    HubClosed,
    LogError,
    SSEHubError,
    SubscriptionClosed,
    UnknownClient,
)
from ssehub.log import ALL, Gap, Log, MemoryLog, Packet, Process, Receipt, Session
from ssehub.server import Connection, Hub, close_all, event_stream, last_event_id
from ssehub.wire import Decoder, Message, decode

if TYPE_CHECKING:
    from ssehub.client import Backoff, Client, StreamRefused, Subscription, Timeout
    from ssehub.log.redis import RedisLog

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
    "Hub",
    "HubClosed",
    "Log",
    "LogError",
    "MemoryLog",
    "Message",
    "Packet",
    "Process",
    "Receipt",
    "RedisLog",
    "SSEHubError",
    "Session",
    "StreamRefused",
    "Subscription",
    "SubscriptionClosed",
    "Timeout",
    "UnknownClient",
    "close_all",
    "decode",
    "event_stream",
    "last_event_id",
]


def __getattr__(name: str) -> Any:
    # A server needs no requests, and one that gevent patches late must not have it: it brings ssl.
    if name in ("Backoff", "Client", "StreamRefused", "Subscription", "Timeout"):
        import ssehub.client

        return getattr(ssehub.client, name)
    if name == "RedisLog":  # needs redis, which is an extra
        from ssehub.log.redis import RedisLog

        return RedisLog
    raise AttributeError(f"module 'ssehub' has no attribute {name!r}")
