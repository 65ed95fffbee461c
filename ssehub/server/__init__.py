"""The hub and its HTTP rim."""

from ssehub.server.connection import Connection
from ssehub.server.hub import Hub, close_all
from ssehub.server.response import event_stream, last_event_id

__all__ = ["Connection", "Hub", "close_all", "event_stream", "last_event_id"]
