"""The entries of a production: the command that begins it, the command that stops it, and the event that ends it.

A production is the output of a generator as the messages of one zone. Each has a random id, its *run*. The beginning
has a key, so of several processes that begin the same production, the log lets one.
"""

from __future__ import annotations

import json
from typing import ClassVar, Literal, NamedTuple

from ssehub.events import Message
from ssehub.log.packet import Command, Packet
from ssehub.log.position import END_MARK

#: The type of the event that ends a production.
END_TYPE = "ssehub.end"

#: Why a production has ended:
#:
#: * ``done``: its generator has ended.
#: * ``stopped``: ``hub.stop`` was called.
#: * ``error``: its generator has raised an exception, or brought an item that cannot be sent, or took too long.
#: * ``lost``: its process has ended before it was done.
EndReason = Literal["done", "stopped", "error", "lost"]


class Ending(Packet):
    """The event that ends a production, for everyone in its zone. A log writes one for each run."""

    mark: ClassVar[str] = END_MARK

    @classmethod
    def of(cls, run: str, zone: str, reason: EndReason, text: str | None = None) -> Ending:
        """Return the end of a run.

        :param text: what readers may know about an error.
        """
        data = {"reason": reason, "zone": zone, **({} if text is None else {"text": text})}
        return cls(Message.from_json(data, END_TYPE), zone, broadcast=True, key=f"{run} end")

    def _check_type(self) -> None:
        if self.message.event != END_TYPE:
            raise ValueError(f"the type of the end must be {END_TYPE!r}, not {self.message.event!r}")


class Beginning(NamedTuple):
    """What the log knows about a production from its beginning."""

    run: str
    zone: str
    key: str

    def command(self) -> Command:
        """Return the command that begins the production, unless its key is taken."""
        message = Message(comment=json.dumps([self.run, self.zone]))
        return Command(message, self.key, broadcast=True, what="produce", key="produce")

    def first(self, repeats: Message | None) -> Beginning:
        """Return the production that has the key.

        :param repeats: the message of the first command with this key; None if it is this one.
        """
        if repeats is None:
            return self
        try:
            run, zone = json.loads(repeats.comment or "")
            return Beginning(str(run), str(zone), self.key)
        except ValueError:  # another program wrote it
            return Beginning("", self.zone, self.key)


def stop_command(zone: str) -> Command:
    """Return the command that stops the productions in a zone."""
    return Command(Message(comment="a command"), zone, broadcast=True, what="stop")
