"""The ordered log: every accepted message has its place in it, and every reader goes on from a place in it."""

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
