"""Writer: appends entries to streams, each exactly once.

If the connection is lost before the answer comes, it is not known whether the entry was appended. So each entry has a
nonce, and the script that appends the entry also writes the nonce and the place to a key, the entry's *record*. If the
entry is sent again, the script finds the record, and returns the place instead of appending the entry a second time.
This works even if the entry was trimmed meanwhile.

The key of a record is used again for a later entry, but only after an entry that was sent in a single attempt. If there
were several, an early one may still be in a network buffer. It could then be carried out later.

A sender waits for ``timeout`` seconds at most. An attempt may take a quarter of this time, and is only started if
enough time is left. To keep this limit, threads wait for a *turn* here, not in the client's connection pool. A turn
ends at a fixed time, even if its thread never returns: gevent can kill a greenlet anywhere, and a signal handler can
raise an exception.
"""

from __future__ import annotations

import collections
import itertools
import re
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import ClusterError, ReadOnlyError

from ssehub.backoff import Backoff
from ssehub.exceptions import LogError
from ssehub.log.position import Position
from ssehub.log.redis.link import CONNECTIONS, ERRORS, Client, disconnect
from ssehub.log.redis.stream import APPEND, position_of

_LATER = re.compile(r"\b(READONLY|LOADING|TRYAGAIN|CLUSTERDOWN|MASTERDOWN|NOREPLICAS|BUSY)\b")
#: Error texts of redis-py that show that nothing was sent, because there was no connection.
_NEVER_SENT = re.compile(r"\bconnecting to\b|cannot be connected|No connection available|\bLOADING\b")
_BACKOFF = Backoff(initial=0.01, maximum=0.5)
#: The number of connections that are reserved for other commands.
_SPARE = 10
#: Seconds between two checks of a thread that waits for its turn.
_LOOK = 0.005
#: Seconds that a record is kept. After this time it can no longer be found out whether an attempt was carried out.
RECORDED = 86_400.0


class Unreachable(LogError):
    """Redis could not be reached in time. The same entry may be sent again."""


class Undeliverable(LogError):
    """It can no longer be found out whether the entry was appended. To send it again could append it twice."""


@dataclass(eq=False)
class Letter:
    """An entry that is to be appended to a stream. Only one thread at a time may send it."""

    key: str
    nonce: str
    route: str
    body: bytes
    #: Whether there was an attempt without an answer.
    may_be_written: bool = False
    #: The epoch of the log before the first attempt; ``""`` if unknown.
    epoch: str = ""
    #: When the first attempt was made (``time.monotonic()``).
    tried_at: float = 0.0
    #: The name of its record: the end of the record's key.
    record: str = ""
    #: The field ``k``: its key and address; ``""`` without a key.
    once: str = ""
    #: If there was an entry with the same key, so that this one was not appended: the encoded message of that entry.
    first: bytes | None = None


class Writer:
    """Appends entries to the streams of a log. Safe to use from any thread.

    :param client: the client that sends the commands. It must not retry them itself.
    :param name: the name of the log.
    :param partitions: the number of the log's streams.
    :param size: the number of entries that a stream keeps.
    :param attempt: the maximum number of seconds that the client waits for a connection, and for an answer.
    """

    def __init__(self, client: Client, name: str, partitions: int, size: int, attempt: float) -> None:
        self._client = client
        self._name = name
        self._partitions = partitions
        self._agreed = False
        self._size = size
        self._attempt = attempt
        self._append = client.register_script(APPEND)
        #: The threads that send, and the latest time at which the turn of each ends (``time.monotonic()``).
        self._turns: dict[int, float] = {}
        #: The epoch of each stream at the last append.
        self._epochs: dict[str, str] = {}
        #: Names of records that can be used again, and numbers for new names.
        self._id = secrets.token_hex(8)
        self._free: collections.deque[str] = collections.deque()
        self._numbers = itertools.count()

    def agree(self) -> None:
        """Check, once, that all processes use the same number of partitions.

        :raises LogError: if the numbers differ. The processes would then use different streams for the same zone.
        """
        if self._agreed:
            return
        key = f"{{{self._name}}}:partitions"
        with self._client.pipeline(transaction=False) as pipe:
            pipe.setnx(key, self._partitions)
            pipe.get(key)
            found: Any = pipe.execute()[1]
        if found is not None and found != str(self._partitions).encode():
            raise LogError(
                f"the log {self._name!r} has {found.decode(errors='replace')} partitions in other processes, and"
                f" {self._partitions} here; to change the number, stop all processes and delete the key {key}"
            )
        self._agreed = True

    def append(self, letter: Letter, patience: float) -> Position:
        """Append an entry. If Redis cannot be reached, try again.

        If the stream has an entry with the same key, this returns the place of that entry, and sets ``letter.first``.

        :param patience: the maximum number of seconds that this may take. At least one attempt is made.
        :raises Unreachable: if Redis could not be reached in this time. The entry may have been appended or not. If you
            send it again, it is not appended twice.
        :raises LogError: if Redis rejects the entry, or if it can no longer be found out whether the entry was
            appended.
        """
        deadline = time.monotonic() + patience
        own = threading.get_ident()
        self._wait_for_turn(own, max(patience, 2 * self._attempt))
        try:
            answer = self._send(letter, deadline)
        finally:
            self._turns.pop(own, None)
        if not answer:
            raise Undeliverable(
                "the log was lost while the message was sent; it is not known whether the message was in it"
            )
        place = position_of(*answer[:2])[0]
        letter.first = answer[2] if len(answer) > 2 else None
        self._epochs[letter.key] = str(place.epoch)
        return place

    def _wait_for_turn(self, own: int, patience: float) -> None:
        latest = time.monotonic() + patience - self._attempt
        while len(self._turns) >= CONNECTIONS - _SPARE and own not in self._turns:
            now = time.monotonic()
            for thread, end in list(self._turns.items()):
                if end < now:
                    self._turns.pop(thread, None)
            if now > latest:
                raise Unreachable("the message was not accepted: too many threads wait for Redis")
            time.sleep(_LOOK)
        self._turns[own] = time.monotonic() + patience + self._attempt

    def _send(self, letter: Letter, deadline: float) -> Any:
        for failures in itertools.count(1):
            try:
                return self._try(letter)
            except ERRORS as error:
                if not _may_pass(error):
                    raise LogError(f"the message was not accepted: {error}") from error
                wait = _BACKOFF.delay(failures, 0.0)
                if time.monotonic() + wait + self._attempt > deadline:
                    unknown = "it is not known whether the message was accepted" if letter.may_be_written else ""
                    raise Unreachable(f"{unknown or 'the message was not accepted'}: {error}") from error
                time.sleep(wait)
        raise AssertionError

    def _try(self, letter: Letter) -> Any:
        self.agree()
        now = time.monotonic()
        letter.tried_at = letter.tried_at or now
        if letter.may_be_written and now - letter.tried_at > RECORDED:
            raise Undeliverable("the message was tried for too long; it is not known whether it was accepted")
        if not letter.record:
            letter.record = self._free.popleft() if self._free else f"sent:{self._id}:{next(self._numbers)}"
            letter.epoch = self._epochs.get(letter.key, "")
        is_again, letter.may_be_written = letter.may_be_written, True
        try:
            answer = self._append(
                keys=[letter.key, f"{letter.key}:{letter.record}", *([f"{letter.key}:once"] if letter.once else [])],
                args=[
                    letter.nonce,
                    letter.route,
                    letter.body,
                    self._size,
                    letter.epoch if is_again else "",
                    int(RECORDED * 1000),
                    letter.once,
                ],
            )
            self._check(letter, answer)
        except ERRORS as error:
            if not _may_have_arrived(error):
                letter.may_be_written = is_again
            if not letter.may_be_written:
                self._release(letter)
            raise
        if not is_again:
            self._release(letter)
        return answer

    def _check(self, letter: Letter, answer: Any) -> None:
        """Check that an answer belongs to an entry.

        :raises redis.ConnectionError: if it belongs to another command. If a signal handler raises an exception within
            redis-py, an unread answer can remain on the connection.
        """
        if answer == []:
            return
        if isinstance(answer, list) and (
            (len(answer) == 2 and bytes(answer[1]).startswith(letter.nonce.encode()))
            or (len(answer) == 4 and bytes(answer[3]) == letter.once.encode())
        ):
            return
        disconnect(self._client)
        raise redis.ConnectionError("the answer belongs to another command")

    def _release(self, letter: Letter) -> None:
        """Allow the use of a record's name for another entry."""
        self._free.append(letter.record)
        letter.record = ""


def _may_have_arrived(error: Exception) -> bool:
    """Return whether Redis may have carried out the command that failed.

    It has not if it answered with an error, or if there was no connection.
    """
    return not isinstance(error, redis.ResponseError) and _NEVER_SENT.search(str(error)) is None


def _may_pass(error: Exception) -> bool:
    """Return whether the command may succeed later: Redis is away, is starting, or is a read-only replica."""
    if isinstance(error, redis.AuthenticationError):
        return False
    if isinstance(error, ReadOnlyError | ClusterError):
        return True
    # If a script fails, the type of the error is only in its text.
    return not isinstance(error, redis.ResponseError) or _LATER.search(str(error)) is not None
