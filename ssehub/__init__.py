"""Server-Sent Events for threaded Python: a hub for WSGI applications, and what scripts need to follow one."""

from ssehub.exceptions import Backlogged, EventTooLarge, HubClosed, LogError, SSEHubError, UnknownClient
from ssehub.log import ALL, Gap, Log, MemoryLog, Packet, Receipt
from ssehub.server import Connection, Hub, event_stream, last_event_id
from ssehub.wire import Decoder, Message, decode

__version__ = "0.1.0"

__all__ = [
    "ALL",
    "Backlogged",
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
    "Receipt",
    "SSEHubError",
    "UnknownClient",
    "decode",
    "event_stream",
    "last_event_id",
]
