"""Messages, and their encoding and decoding as event streams. No I/O, no threads."""

from ssehub.events.decoder import Decoder, decode
from ssehub.events.message import Message, Received

__all__ = ["Decoder", "Message", "Received", "decode"]
