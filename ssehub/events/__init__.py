"""What travels: messages as they are sent and received. Pure functions of bytes, no I/O, no threads."""

from ssehub.events.decoder import Decoder, decode
from ssehub.events.message import Message, Received

__all__ = ["Decoder", "Message", "Received", "decode"]
