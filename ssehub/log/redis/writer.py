"""Writer: appends to streams, each entry once.

An attempt to append can end without an answer. So each entry has a nonce, and the script that appends it notes the
nonce and the place in a key of its own, the entry's *record*. A later attempt finds the record, whatever has been
appended or trimmed meanwhile, and returns the place. The record's name is used again by the next entry of this process,
but only if the entry was sent in a single attempt: otherwise an earlier attempt may still lie in a buffer, and be
carried out later.

A sender waits for ``timeout`` seconds at most. An attempt may take a quarter of that, and none begins that could end
too late. Threads wait for their turn here, and not in the client's pool of connections, for the same reason. A turn
ends with its time, whatever happens to its thread: gevent can kill a greenlet anywhere, and a signal handler can raise.
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
#: What redis-py says when no connection could be made or was free, so that nothing was sent.
_NEVER_SENT = re.compile(r"\bconnecting to\b|cannot be connected|No connection available|\bLOADING\b")
_BACKOFF = Backoff(initial=0.01, maximum=0.5)
#: Connections that are left for other things than appending.
_SPARE = 10
#: Seconds between two looks of a thread that waits for its turn.
_LOOK = 0.005
#: Seconds a record is kept. Whoever tries longer cannot know any more whether an attempt was carried out.
RECORDED = 86_400.0


class Unreachable(LogError):
    """The server was away for too long; the entry may be sent again."""


class Undeliverable(LogError):
    """It cannot be found out any more whether the entry was written; to send it again could write it twice."""


@dataclass(eq=False)
class Letter:
    """Hold an entry that is on its way into a stream. Only one thread at a time may send it."""

    key: str
    nonce: str
    route: str
    body: bytes
    #: Whether an attempt was made whose outcome is not known; the epoch of the log before it, if that is known; and
    #: when the first attempt was made (``time.monotonic()``).
    may_be_written: bool = False
    epoch: str = ""
    tried_at: float = 0.0
    #: The key of its record.
    record: str = ""


class Writer:
    """Append to streams. Safe to use from any thread.

    :param client: sends commands, without trying again by itself.
    :param name: the name of the log.
    :param partitions: the number of its streams.
    :param size: entries a stream keeps.
    :param attempt: seconds that the client waits for a connection, and for an answer.
    """

    def __init__(self, client: Client, name: str, partitions: int, size: int, attempt: float) -> None:
        self._client = client
        self._name = name
        self._partitions = partitions
        self._agreed = False
        self._size = size
        self._attempt = attempt
        self._append = client.register_script(APPEND)
        #: The threads that send, and when the turn of each ends at the latest (``time.monotonic()``).
        self._turns: dict[int, float] = {}
        #: The epoch of each stream when it was last appended to.
        self._epochs: dict[str, str] = {}
        #: Names of records that are free, and numbers for new ones.
        self._id = secrets.token_hex(8)
        self._free: collections.deque[str] = collections.deque()
        self._numbers = itertools.count()

    def agree(self) -> None:
        """See to it, once, that all processes have spread the log over the same number of streams.

        :raises LogError: if they have not: what this one sent or followed would not be what the others do.
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
                f"the log {self._name!r} has {found.decode(errors='replace')} partitions for others, and"
                f" {self._partitions} here; to change the number stop all processes, and delete the key {key}"
            )
        self._agreed = True

    def append(self, letter: Letter, patience: float) -> Position:
        """Append an entry, and try again for a while if the server is away.

        :param patience: seconds that it may take; at least one attempt is made.
        :raises Unreachable: if the server was away for so long. It is not known then whether the entry was written;
            sent again, it is not written twice.
        :raises LogError: if it is refused, or it cannot be found out any more whether it was written.
        """
        deadline = time.monotonic() + patience
        own = threading.get_ident()
        self._wait_for_turn(own, max(patience, 2 * self._attempt))
        try:
            answer = self._send(letter, deadline)
        finally:
            self._turns.pop(own, None)
        if not answer:
            raise Undeliverable("the log was lost while the message was sent; nobody knows whether it was in it")
        place = position_of(*answer)[0]
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
                    unknown = "nobody knows whether the message was accepted" if letter.may_be_written else ""
                    raise Unreachable(f"{unknown or 'the message was not accepted'}: {error}") from error
                time.sleep(wait)
        raise AssertionError

    def _try(self, letter: Letter) -> Any:
        self.agree()
        now = time.monotonic()
        letter.tried_at = letter.tried_at or now
        if letter.may_be_written and now - letter.tried_at > RECORDED:
            raise Undeliverable("the message was tried for too long; nobody knows whether it was accepted")
        if not letter.record:
            letter.record = self._free.popleft() if self._free else f"sent:{self._id}:{next(self._numbers)}"
            letter.epoch = self._epochs.get(letter.key, "")
        is_again, letter.may_be_written = letter.may_be_written, True
        try:
            answer = self._append(
                keys=[letter.key, f"{letter.key}:{letter.record}"],
                args=[
                    letter.nonce,
                    letter.route,
                    letter.body,
                    self._size,
                    letter.epoch if is_again else "",
                    int(RECORDED * 1000),
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

        :raises redis.ConnectionError: if it is another's. If a signal handler raises an exception within redis-py, it
            leaves a connection with an answer that was not read.
        """
        if answer == [] or (
            isinstance(answer, list) and len(answer) == 2 and bytes(answer[1]).startswith(letter.nonce.encode())
        ):
            return
        disconnect(self._client)
        raise redis.ConnectionError("the answer is that to another command")

    def _release(self, letter: Letter) -> None:
        """Use a record's name again."""
        self._free.append(letter.record)
        letter.record = ""


def _may_have_arrived(error: Exception) -> bool:
    """Return whether the server may have carried out a command that failed so: not if it says no, or there was none."""
    return not isinstance(error, redis.ResponseError) and _NEVER_SENT.search(str(error)) is None


def _may_pass(error: Exception) -> bool:
    """Return whether it may work later: the server is away, starting, or not the one that takes writes."""
    if isinstance(error, redis.AuthenticationError):
        return False
    if isinstance(error, ReadOnlyError | ClusterError):
        return True
    # Within a script's error the kind is only in its text.
    return not isinstance(error, redis.ResponseError) or _LATER.search(str(error)) is not None
