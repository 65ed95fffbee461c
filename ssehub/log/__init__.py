"""The ordered log. Every accepted message has a place in the log, and every reader reads on from its own place."""

from ssehub.log.base import Gap, Interest, Log, Page, Readable
from ssehub.log.memory import MemoryLog
from ssehub.log.packet import ALL, All, Command, Entry, Packet, Receipt
from ssehub.log.position import Place, Position
from ssehub.log.presence import Presence, Process, Session

__all__ = [
    "ALL",
    "All",
    "Command",
    "Entry",
    "Gap",
    "Interest",
    "Log",
    "MemoryLog",
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
