"""Packet: a message and its address. Entry: a packet and its place in the log. Receipt: the answer to the sender."""

from __future__ import annotations

import enum
import functools
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal, NamedTuple

from ssehub.events import Message
from ssehub.events.message import Received
from ssehub.log.position import Place, Position, parse_parts, without_end
from ssehub.logger import logger


class _All(enum.Enum):
    ALL = "ALL"

    def __repr__(self) -> str:
        return "ALL"


#: Every zone. This is not None, so that a missing user id does not turn a private message into a broadcast.
ALL: Final = _All.ALL
All = Literal[_All.ALL]

#: The longest name of a zone or a client, in characters. Precedent: 255, the limit of file systems and databases.
MAX_NAME = 255
#: Control characters, and halves of surrogate pairs.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: The longest id that a sender may choose, in characters. Clients send it in a header, and servers limit its length.
MAX_ID = 255
#: The longest reconnection time that a sender may ask for, in milliseconds: a day.
MAX_SENT_RETRY = 86_400_000
#: Types of events that a browser's ``EventSource`` itself dispatches.
BROWSERS_TYPES = frozenset(("error", "open"))


#: What a command does.
What = Literal["disconnect", "metadata", "produce", "stop", "nothing"]

#: The end of an error text where :data:`ALL` is allowed instead of a name.
OR_ALL = "; for all, use ssehub.ALL"


def check_name(what: str, name: object, hint: str = "") -> str:
    """Check the name of a zone or a client.

    :param what: the word for the name in error texts.
    :param hint: the end of the error text if the name is not a string.
    :returns: the name.
    :raises TypeError: if the name is not a string.
    :raises ValueError: if the name is empty, too long, or contains control characters.
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
    """Reject event types that are reserved for hubs. Clients trust events of these types.

    :raises ValueError: if the type begins with ``ssehub.``.
    """
    if message.event.startswith("ssehub."):
        raise ValueError(f"types that begin with 'ssehub.' are the hub's own: {message.event!r}")


def check_fields(message: Message) -> None:
    """Check the id and the reconnection time of a message before it is sent.

    A client sends the id back in the header ``Last-Event-ID`` when it reconnects. If a server refuses that header, the
    client can never reconnect.

    :raises ValueError: if the id is empty, too long, or cannot be sent in a header unchanged, or if the reconnection
        time is more than a day.
    """
    if message.id is not None:
        _check_id(message.id)
    if message.retry is not None and message.retry > MAX_SENT_RETRY:
        raise ValueError(f"retry must not be more than a day, which is {MAX_SENT_RETRY} ms")


def _check_id(id: str) -> None:
    if not id:
        raise ValueError("id is empty: clients would lose their place, and miss messages")
    if len(id) > MAX_ID:
        raise ValueError(f"id is longer than {MAX_ID} characters")
    if _UNFIT.search(id) or id != id.strip():
        raise ValueError(f"id has a control character, or begins or ends with a blank: {id!r}")


def warn_of_type(message: Message) -> None:
    """Log a warning if browsers dispatch events of the same type themselves. Each type is logged once."""
    if message.event in BROWSERS_TYPES:
        _warn_once(message.event)


@functools.cache
def _warn_once(event: str) -> None:
    logger.warning("an event of type %r also calls EventSource.on%s in every page: use another type", event, event)


@dataclass(frozen=True)
class Packet:
    """A message and its address. Immutable, so threads may share it.

    There are four kinds of addresses: everyone, everyone in a zone, a client in a zone, and a client in all zones.

    :param message: the message. If a decoder or a client has received it, only its data and type are sent, and the log
        assigns a new id.
    :param zone: the name of a zone, or :data:`ALL`.
    :param client_id: the client. All its sessions get the message. None if ``broadcast`` is True.
    :param broadcast: True for everyone in the zone.
    :param exclude: ids of sessions that do not get the message, for example the sender's.
    :param key: the log writes one message for a key and an address, as long as it holds that message. None: no limit.
    :raises ValueError: if there is neither a client nor ``broadcast``, or both; if a name is not allowed; if the event
        type is reserved for hubs; if the id or the reconnection time cannot be sent (see :class:`~ssehub.Message`); or
        if the id looks like a cursor, because clients would come back with a wrong place.
    :raises TypeError: if an argument has the wrong type.
    """

    message: Message
    zone: str | All = ALL
    client_id: str | None = None
    broadcast: bool = False
    exclude: frozenset[str] = frozenset()
    key: str | None = field(default=None, kw_only=True)
    #: The end of the id that the log gives to its entry.
    mark: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if not isinstance(self.message, Message):
            raise TypeError(f"message must be a Message, not {type(self.message).__name__}")
        if isinstance(self.message, Received):
            # Its id belongs to the other stream. Several messages may have the same id.
            object.__setattr__(self, "message", Message(self.message.data, self.message.event))
        self._check_type()
        check_fields(self.message)
        if self.message.id is not None and parse_parts(without_end(self.message.id)) is not None:
            raise ValueError(
                f"id looks like a cursor, so clients would come back with a wrong place: {self.message.id!r}"
            )
        if self.zone is not ALL:
            check_name("zone", self.zone, OR_ALL)
        if not isinstance(self.broadcast, bool):
            raise TypeError(f"broadcast must be a bool, not {type(self.broadcast).__name__}")
        if self.client_id is not None:
            check_name("client_id", self.client_id)
        if self.key is not None:
            check_name("key", self.key)
        if self.broadcast and self.client_id is not None:
            raise ValueError("a packet is either for one client or a broadcast, not both")
        if not self.broadcast and self.client_id is None:
            raise ValueError("the packet addresses nobody: give a client_id, or broadcast=True for all in the zone")
        object.__setattr__(self, "exclude", _session_ids(self.exclude))

    def _check_type(self) -> None:
        check_type(self.message)

    @property
    def once(self) -> str | None:
        """The key and the address as one short text, which a log stores; None without a key."""
        if self.key is None:
            return None
        address = json.dumps([None if self.zone is ALL else self.zone, self.client_id, self.key])
        return hashlib.blake2b(address.encode(), digest_size=16).hexdigest()

    def encode(self) -> bytes:
        """Return the encoded message. If the log has to assign the id, it is not in these bytes."""
        return self.message.encode()


@dataclass(frozen=True)
class Command(Packet):
    """An instruction to every process of a hub. It is in the log, but is not sent to clients.

    :param what: ``"disconnect"`` ends the streams. ``"metadata"`` replaces the client's metadata. ``"produce"`` begins
        a production, and ``"stop"`` stops those in a zone. ``"nothing"`` replaces an entry that cannot be read.
    :param session_id: the session to disconnect; None for all.
    :param data: the metadata.
    :param version: the later of two commands has the greater version. It is needed because the same command arrives in
        several partitions.
    """

    what: What = "disconnect"
    session_id: str | None = None
    data: Any = None
    version: tuple[int, int] | None = None

    @classmethod
    def disconnect(cls, client_id: str, zone: str | All, session_id: str | None) -> Command:
        """Return the command that ends a client's streams."""
        return cls(_NOTHING, zone, client_id, session_id=session_id)

    @classmethod
    def metadata(cls, client_id: str, data: Any) -> Command:
        """Return the command that replaces a client's metadata."""
        return cls(_NOTHING, ALL, client_id, what="metadata", data=data)

    @classmethod
    def nothing(cls) -> Command:
        """Return the command that does nothing."""
        return cls(_NOTHING, broadcast=True, what="nothing")

    def versioned_by(self, place: Position) -> Command:
        """Return the command with a version, for the other partitions. The version is its place in the first one."""
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
    """A packet in the log, with the bytes that every receiver gets. Immutable by convention.

    :ivar packet: the message and its address.
    :ivar position: where the entry is in its partition.
    :ivar place: the place of a reader that has read up to this entry: the entry's position, and the reader's positions
        in its other partitions.
    :ivar previous: the nonce of the entry before, or :data:`~ssehub.log.position.GENESIS`.
    :ivar id: the event id that is sent: the message's id if it has one, otherwise ``place`` as a cursor.
    :ivar data: the encoded event, including the id.
    :ivar sent: when the message was sent, in seconds since 1970 by the sender's clock; 0 if unknown.
    """

    __slots__ = ("data", "id", "packet", "place", "position", "previous", "sent")

    def __init__(self, packet: Packet, position: Position, previous: str, body: bytes, sent: float = 0.0) -> None:
        self.packet: Packet = packet
        self.position: Position = position
        self.place: Place = position
        self.previous: str = previous
        self.sent: float = sent
        own_id = packet.message.id
        self.id: str = str(position) + packet.mark if own_id is None else own_id
        self.data: bytes = b"id: %s\n%s" % (self.id.encode(), body) if own_id is None else body

    @property
    def cursor(self) -> Place | None:
        """The place with which a client comes back after this entry; None if the message has its own id."""
        return self.place if self.packet.message.id is None else None

    def seen_from(self, place: Place) -> Entry:
        """Return this entry for a reader of several partitions that is at ``place`` after it."""
        body = self.data if self.packet.message.id is not None else self.data[self.data.index(b"\n") + 1 :]
        seen = Entry(self.packet, self.position, self.previous, body, self.sent)
        seen.place = place
        if self.packet.message.id is None:
            seen.id = str(place) + self.packet.mark
            seen.data = b"id: %s\n%s" % (seen.id.encode(), body)
        return seen


class Receipt(NamedTuple):
    """The result of sending a message: the log has accepted it.

    ``id`` is the event id, or ``""`` if the message waits in a log's outbox. ``queued`` is the number of connections of
    this process to which the message is addressed. 0 is not an error: a client that connects later gets the message
    from the log.

    ``repeats`` is None if the message was written. If the log has a message with the same key and address, this one was
    not written. Then ``repeats`` is the message that the log has, ``id`` is its id, and ``queued`` is 0.
    """

    id: str
    queued: int
    repeats: Message | None = None
