"""Writer: appends to streams, each entry once."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import ClusterError, ReadOnlyError

from ssehub.exceptions import LogError
from ssehub.log.position import Position
from ssehub.log.redis.link import ERRORS, Client
from ssehub.log.redis.stream import APPEND, TOP, named, position_of

_LATER = re.compile(r"\b(READONLY|LOADING|TRYAGAIN|CLUSTERDOWN|MASTERDOWN|NOREPLICAS|BUSY)\b")
#: What redis-py says when no connection could be made or was free, so that nothing was sent.
_NEVER_SENT = re.compile(r"\bconnecting to\b|cannot be connected|No connection available|\bLOADING\b")


class Unreachable(LogError):
    """The server was away for too long; the entry may be sent again."""


@dataclass
class Letter:
    """Hold an entry that is on its way into a stream. Only one thread at a time may send it."""

    key: str
    nonce: str
    route: str
    body: bytes
    #: Whether an attempt was made whose outcome nobody knows, and an entry that was there before it.
    may_be_written: bool = False
    known: tuple[str, str] | None = None


class Writer:
    """Append to streams. Safe to use from any thread.

    :param client: sends commands, without trying again by itself.
    :param name: the name of the log.
    :param partitions: the number of its streams.
    :param size: entries a stream keeps.
    """

    def __init__(self, client: Client, name: str, partitions: int, size: int) -> None:
        self._client = client
        self._name = name
        self._partitions = partitions
        self._agreed = False
        self._size = size
        self._append = client.register_script(APPEND)
        self._top = client.register_script(TOP)
        #: For each stream an entry that was there before whatever is sent next: its id and its nonce.
        self._known: dict[str, tuple[str, str]] = {}

    def agree(self) -> None:
        """See to it, once, that all processes have spread the log over the same number of streams.

        :raises LogError: if they have not: what this one sent or followed would not be what the others do.
        """
        if self._agreed:
            return
        key = f"{{{self._name}}}:partitions"
        self._client.setnx(key, self._partitions)
        found: Any = self._client.get(key)
        if found is not None and int(found) != self._partitions:
            raise LogError(
                f"the log {self._name!r} has {int(found)} partitions for others, and {self._partitions} here; to change"
                f" the number stop all processes, and delete the key {key}"
            )
        self._agreed = True

    def append(self, letter: Letter, patience: float) -> Position:
        """Append an entry, and try again for a while if the server is away.

        :param patience: seconds.
        :raises Unreachable: if the server was away for so long. Nobody may know then whether the entry was written;
            sent again, it is not written twice.
        :raises LogError: if it is refused, or it cannot be found out any more whether it was written.
        """
        deadline = time.monotonic() + patience
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = self._try(letter)
                break
            except ERRORS as error:
                wait = random.uniform(0.5, 1.0) * min(0.01 * 2**attempt, 0.5)
                if not _may_pass(error):
                    raise LogError(f"the message was not accepted: {error}") from error
                if time.monotonic() + wait > deadline:
                    unknown = "nobody knows whether the message was accepted" if letter.may_be_written else ""
                    raise Unreachable(f"{unknown or 'the message was not accepted'}: {error}") from error
                time.sleep(wait)
        if not answer:
            self._known.pop(letter.key, None)
            raise LogError("the log was lost or trimmed while the message was sent; nobody knows whether it was in it")
        self._known[letter.key] = named(answer[0], [b"h", answer[1]])
        return position_of(*answer)[0]

    def _try(self, letter: Letter) -> Any:
        self.agree()
        if letter.known is None:
            letter.known = self._known.get(letter.key) or named(*self._top(keys=[letter.key]))
        # How many others have written since the first attempt nobody knows.
        arguments: list[Any] = [
            letter.nonce,
            letter.route,
            letter.body,
            self._size,
            int(letter.may_be_written),
            *letter.known,
        ]
        before, letter.may_be_written = letter.may_be_written, True
        try:
            return self._append(keys=[letter.key], args=arguments)
        except ERRORS as error:
            if not _may_have_arrived(error):
                letter.may_be_written = before
            raise


def _may_have_arrived(error: Exception) -> bool:
    """Tell whether the server may have carried out a command that failed so: not if it says no, or there was none."""
    return not isinstance(error, redis.ResponseError) and _NEVER_SENT.search(str(error)) is None


def _may_pass(error: Exception) -> bool:
    """Tell whether it may work a little later: the server is away, starting, or not the one that takes writes."""
    if isinstance(error, redis.AuthenticationError):
        return False
    if isinstance(error, ReadOnlyError | ClusterError):
        return True
    # Within a script's error the kind is only in its text.
    return not isinstance(error, redis.ResponseError) or _LATER.search(str(error)) is not None
