"""Writer: appends to streams, each entry once."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import redis

from ssehub.exceptions import LogError
from ssehub.log.position import Position
from ssehub.log.redis.link import ERRORS, Client
from ssehub.log.redis.stream import APPEND, TOP, named, position_of

_LATER = re.compile(r"\b(READONLY|LOADING|TRYAGAIN|CLUSTERDOWN|MASTERDOWN|NOREPLICAS|BUSY)\b")


class Writer:
    """Append to streams. Safe to use from any thread.

    :param client: sends commands, without trying again by itself.
    :param size: entries a stream keeps.
    :param timeout: seconds an append may take.
    """

    def __init__(self, client: Client, size: int, timeout: float) -> None:
        self._size = size
        self._timeout = timeout
        self._append = client.register_script(APPEND)
        self._top = client.register_script(TOP)
        #: For each stream an entry that was there before whatever is sent next: its id and its nonce.
        self._known: dict[str, tuple[str, str]] = {}

    def append(self, key: str, nonce: str, route: str, body: bytes) -> Position:
        """Append an entry, and try again for a while if the server is away.

        :raises LogError: if it was not accepted, or nobody knows.
        """
        deadline = time.monotonic() + self._timeout
        known = self._known.get(key)
        may_be_written = False
        attempt = 0
        while True:
            attempt += 1
            try:
                if known is None:
                    known = self._known[key] = named(*self._top(keys=[key]))
                # How many others have written since the first attempt nobody knows.
                arguments: list[Any] = [nonce, route, body, self._size, int(may_be_written), *known]
                may_be_written = True
                answer = self._append(keys=[key], args=arguments)
                break
            except ERRORS as error:
                wait = random.uniform(0.5, 1.0) * min(0.01 * 2**attempt, 0.5)
                if not may_pass(error) or time.monotonic() + wait > deadline:
                    raise LogError(f"the message was not accepted: {error}") from error
                time.sleep(wait)
        if not answer:
            self._known.pop(key, None)
            raise LogError("the log was lost or trimmed while the message was sent; nobody knows whether it was in it")
        self._known[key] = named(answer[0], [b"h", answer[1]])
        return position_of(*answer)[0]


def may_pass(error: Exception) -> bool:
    """Tell whether it may work a little later: the server is away, starting, or not the one that takes writes."""
    if isinstance(error, redis.AuthenticationError):
        return False
    # Within a script's error the kind is only in its text.
    return not isinstance(error, redis.ResponseError) or _LATER.search(str(error)) is not None
