"""Packet: a message and whom it is for. Entry: a packet with its place in the log. Receipt: what the sender gets."""

from __future__ import annotations

import enum
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

from ssehub.events import Message
from ssehub.events.message import Received
from ssehub.log.position import Place, Position, parse_parts
from ssehub.logger import logger


class _All(enum.Enum):
    ALL = "ALL"

    def __repr__(self) -> str:
        return "ALL"


#: Everyone, every zone. Not None, so that a user id that is missing cannot turn a private message into a broadcast.
ALL: Final = _All.ALL
All = Literal[_All.ALL]

#: The longest name of a zone or a client, in characters. Precedent: the 255 of a database's or a file system's names.
MAX_NAME = 255
#: Control characters, and halves of surrogate pairs.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: The longest id that a sender may choose, in characters. It comes back in a request header; servers limit its length.
MAX_ID = 255
#: The longest reconnection time that a sender may ask for, in milliseconds: a day.
MAX_SENT_RETRY = 86_400_000
#: Types of the events that a browser's ``EventSource`` fires by itself.
BROWSERS_TYPES = frozenset(("error", "open"))


#: What an error adds where :data:`ALL` can stand in a name's place.
OR_ALL = "; for all, use ssehub.ALL"


def check_name(what: str, name: object, hint: str = "") -> str:
    """Check the name of a zone or a client where it enters.

    :param what: what an error calls it.
    :param hint: what the error adds if it is not a string.
    :returns: the name.
    :raises TypeError: if it is not a string.
    :raises ValueError: if it is empty, too long or holds control characters.
    """
    if name is None:
        raise TypeError(f"{what} is None{hint}")
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a str, not {'ALL' if name is ALL else type(name).__name__}{hint}")
    if not name:
        raise ValueError(f"{what} is empty")
    if len(name) > MAX_NAME:
        raise ValueError(f"{what} is longer than {MAX_NAME} characters")
    if _UNFIT.search(name):
        raise ValueError(f"{what} contains a control character or half of a surrogate pair: {name!r}")
    return name


def check_type(message: Message) -> None:
    """Refuse a type that belongs to hubs: clients believe what events of these types say.

    :raises ValueError: if the type begins with ``ssehub.``.
    """
    if message.event.startswith("ssehub."):
        raise ValueError(f"types that begin with 'ssehub.' are the hub's own: {message.event!r}")


def check_fields(message: Message) -> None:
    """Check the id and the reconnection time of a message that is about to be sent.

    A client sends the id back in the header ``Last-Event-ID`` when it reconnects. If a server refuses that header, the
    client can never reconnect.

    :raises ValueError: if the id is empty, too long, or would not arrive in the header as it is, or if the reconnection
        time is more than a day.
    """
    if message.id is not None:
        _check_id(message.id)
    if message.retry is not None and message.retry > MAX_SENT_RETRY:
        raise ValueError(f"retry must not be more than a day, which is {MAX_SENT_RETRY} ms")


def _check_id(id: str) -> None:
    if not id:
        raise ValueError("id is empty: clients would forget their place, and miss messages")
    if len(id) > MAX_ID:
        raise ValueError(f"id is longer than {MAX_ID} characters")
    if _UNFIT.search(id) or id != id.strip():
        raise ValueError(f"id has a control character, or begins or ends with a blank: {id!r}")


def warn_of_type(message: Message) -> None:
    """Log a warning, once for each type, if a page would take the event for one of the browser's own."""
    if message.event in BROWSERS_TYPES:
        _warn_once(message.event)


@functools.cache
def _warn_once(event: str) -> None:
    logger.warning("an event of the type %r also calls the EventSource's on%s in every page: use another", event, event)


@dataclass(frozen=True)
class Packet:
    """Address a message: to everyone, to a zone, to a client in a zone, or to a client wherever it is.

    Immutable; may be shared between threads.

    :param message: what to send. One that a decoder or a client has received is sent on with its data and type, and
        gets an id of this log.
    :param zone: one zone's name, or :data:`ALL`.
    :param client_id: the client all of whose sessions get it; None with ``broadcast=True``.
    :param broadcast: True for everyone in the zone.
    :param exclude: ids of sessions that do not get it, the sender's own for instance.
    :raises ValueError: if it addresses nobody, or a client and everyone at once, or a name is unfit, or the message's
        type is one of the hub's own, or its id or reconnection time cannot be sent; see :class:`~ssehub.Message`. An
        id must not look like a cursor, either: clients would come back with a place that is not theirs.
    :raises TypeError: if an argument has the wrong type.
    """

    message: Message
    zone: str | All = ALL
    client_id: str | None = None
    broadcast: bool = False
    exclude: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not isinstance(self.message, Message):
            raise TypeError(f"message must be a Message, not {type(self.message).__name__}")
        if isinstance(self.message, Received):
            # Its id is the last that was in force where it was received; as its own, several could come to share it.
            object.__setattr__(self, "message", Message(self.message.data, self.message.event))
        check_type(self.message)
        check_fields(self.message)
        if self.message.id is not None and parse_parts(self.message.id) is not None:
            raise ValueError(f"id looks like a cursor, a place in a log, and would move clients: {self.message.id!r}")
        if self.zone is not ALL:
            check_name("zone", self.zone, OR_ALL)
        if not isinstance(self.broadcast, bool):
            raise TypeError(f"broadcast must be a bool, not {type(self.broadcast).__name__}")
        if self.client_id is not None:
            check_name("client_id", self.client_id)
        if self.broadcast and self.client_id is not None:
            raise ValueError("a packet is either for one client or a broadcast, not both")
        if not self.broadcast and self.client_id is None:
            raise ValueError("the packet addresses nobody: give a client_id, or broadcast=True for everyone")
        object.__setattr__(self, "exclude", _session_ids(self.exclude))

    def encode(self) -> bytes:
        """Make the bytes of the message; they still lack the id if the log is to assign one."""
        return self.message.encode()


@dataclass(frozen=True)
class Command(Packet):
    """What every process of a hub is to do with a client's sessions. It goes through the log, but to no client.

    :param what: ``"disconnect"``; ``"metadata"`` to replace what is noted about the client; ``"nothing"`` stands for an
        entry that cannot be read.
    :param session_id: only this session; None for all.
    :param data: the metadata.
    :param version: says which of two commands is the later, if they come in several partitions.
    """

    what: Literal["disconnect", "metadata", "nothing"] = "disconnect"
    session_id: str | None = None
    data: Any = None
    version: tuple[int, int] | None = None

    @classmethod
    def disconnect(cls, client_id: str, zone: str | All, session_id: str | None) -> Command:
        """Make the command that ends a client's streams."""
        return cls(_NOTHING, zone, client_id, session_id=session_id)

    @classmethod
    def metadata(cls, client_id: str, data: Any) -> Command:
        """Make the command that replaces a client's metadata."""
        return cls(_NOTHING, ALL, client_id, what="metadata", data=data)

    @classmethod
    def nothing(cls) -> Command:
        """Make the command to do nothing."""
        return cls(_NOTHING, broadcast=True, what="nothing")

    def versioned_by(self, place: Position) -> Command:
        """Return the command with its version, for the other partitions: its place in the first."""
        return self if self.version else replace(self, version=place[:2])


_NOTHING = Message(comment="a command")


def _session_ids(exclude: Iterable[str]) -> frozenset[str]:
    if isinstance(exclude, str) or not isinstance(exclude, Iterable):
        raise TypeError(f"exclude must be a collection of session ids, not {exclude!r}")
    ids = frozenset(exclude)
    for session_id in ids:
        check_name("a session id in exclude", session_id)
    return ids


class Entry:
    """A packet at its place in the log, with the bytes that every receiver gets. Immutable by convention.

    :ivar packet: what was sent and to whom.
    :ivar position: its place.
    :ivar place: the place of a reader that has read up to it: its position, and those in the reader's other partitions.
    :ivar previous: the nonce of the entry before it, or :data:`~ssehub.log.position.GENESIS`.
    :ivar id: the id on the wire: the message's own if it has one, else the cursor of the place.
    :ivar data: the encoded event, id included.
    :ivar sent: when it was sent, in seconds since 1970 by the sender's clock; 0 if that is not known.
    """

    __slots__ = ("data", "id", "packet", "place", "position", "previous", "sent")

    def __init__(self, packet: Packet, position: Position, previous: str, body: bytes, sent: float = 0.0) -> None:
        self.packet: Packet = packet
        self.position: Position = position
        self.place: Place = position
        self.previous: str = previous
        self.sent: float = sent
        own_id = packet.message.id
        self.id: str = str(position) if own_id is None else own_id
        self.data: bytes = b"id: %s\n%s" % (self.id.encode(), body) if own_id is None else body

    @property
    def cursor(self) -> Place | None:
        """The place that a client comes back with after this entry; None if the message has an id of its own."""
        return self.place if self.packet.message.id is None else None

    def seen_from(self, place: Place) -> Entry:
        """Return the same entry for a reader that is at another place after it."""
        body = self.data if self.packet.message.id is not None else self.data[self.data.index(b"\n") + 1 :]
        seen = Entry(self.packet, self.position, self.previous, body, self.sent)
        seen.place = place
        if self.packet.message.id is None:
            seen.id = str(place)
            seen.data = b"id: %s\n%s" % (seen.id.encode(), body)
        return seen


class Receipt(NamedTuple):
    """What became of a message: it is in the log.

    ``id`` is the event's id on the wire, empty if the message waits in a log's outbox. ``queued`` is the number of
    connections of this process it was addressed to when it was accepted. 0 is not an error: a client that comes back
    later still gets the message from the log.
    """

    id: str
    queued: int
