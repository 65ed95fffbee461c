"""The ordered log: every accepted message has its place in it, and every reader goes on from a place in it."""

from ssehub.log.base import Gap, Log, Page, Readable
from ssehub.log.memory import MemoryLog
from ssehub.log.packet import ALL, All, Entry, Order, Packet, Receipt
from ssehub.log.position import Place, Position
from ssehub.log.presence import Presence, Process, Session

__all__ = [
    "ALL",
    "All",
    "Entry",
    "Gap",
    "Log",
    "MemoryLog",
    "Order",
    "Packet",
    "Page",
    "Place",
    "Position",
    "Presence",
    "Process",
    "Readable",
    "Receipt",
    "Session",
]
