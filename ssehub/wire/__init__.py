"""What travels: messages as they are sent and received. Pure functions of bytes, no I/O, no threads."""

from ssehub.wire.decoder import Decoder, decode
from ssehub.wire.message import Message, Received

__all__ = ["Decoder", "Message", "Received", "decode"]
