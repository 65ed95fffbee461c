"""Sender: one kept connection through which numbered messages go to a service, one after the other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from ssehub.tools.bench.body import Body
from ssehub.tools.bench.connection import Connection
from ssehub.tools.bench.loop import Loop
from ssehub.tools.bench.tally import Numbered
from ssehub.tools.bench.target import Target

#: Seconds of rest after which a connection is not used again: the service may be about to close it, and what became of
#: a message that met that is unknown. gunicorn keeps one for 2 s.
_REST = 0.5
#: Bytes of an answer; that of ``/send`` has some hundred.
_LONGEST = 1 << 20


class Sender:
    """Send messages, each after the answer to the one before: so they have an order of their own in the log.

    Everything happens in the loop's thread.

    :param name: what its messages say they are from; unique.
    :param fields: of each message, beside the data.
    :param size: characters of the data, at the least what its numbers take.
    :param done: called with each answer in words, empty for a message that was accepted, and the HTTP status, 0 if
        there was none.

    :ivar sent: messages that were sent, or tried; their numbers are 0 to one below.
    :ivar doubtful: numbers of those that were not accepted, as far as is known.
    """

    def __init__(
        self,
        loop: Loop,
        target: Target,
        name: str,
        fields: dict[str, Any],
        size: int,
        patience: float,
        done: Callable[[Sender, str, int], None],
    ) -> None:
        self.name = name
        self.sent: int = 0
        self.doubtful: set[int] = set()
        self.busy: bool = False
        self._loop = loop
        self._target = target
        self._fields = fields
        self._size = size
        self._patience = patience
        self._done = done
        self._connection: Connection | None = None
        self._is_ready = False
        self._used = 0.0
        self._request = b""
        self._answer = Body()
        self._text = b""

    def send(self, due: float) -> None:
        """Send the next message.

        :param due: when it was due, by ``time.monotonic()``.
        """
        number, self.sent, self.busy = self.sent, self.sent + 1, True
        data = write(Numbered(self.name, number, due), self._size)
        body = json.dumps({**self._fields, "data": data}).encode()
        length = b"Content-Length: %d" % len(body)
        self._request = self._target.request("POST", b"Content-Type: application/json", length, body=body)
        self._answer, self._text = Body(), b""
        now = time.monotonic()
        self._loop.call_at(now + self._patience, lambda: self._give_up(number))
        if self._connection is not None and self._used + _REST < now:
            self.close()
        try:
            if self._connection is None:
                self._is_ready = False
                self._connection = Connection(self._loop, self._target, self)
            elif self._is_ready:
                self._connection.write(self._request)
        except OSError as error:
            lost = error
            self._loop.call_at(now, lambda: self.lost(lost))

    def ready(self) -> None:
        """Send what waits for the connection."""
        self._is_ready = True
        if self._connection is not None and self.busy:
            self._connection.write(self._request)

    def received(self, data: bytes) -> None:
        """Take the answer, or a part of it."""
        if not self.busy:
            return
        try:
            self._text += self._answer.feed(data)
        except ValueError as error:
            self.close()
            self._end(str(error), 0)
            return
        if len(self._text) > _LONGEST:
            self.close()
            self._end(f"{self._answer.status} with an answer that does not end", self._answer.status)
        elif self._answer.ended:
            self._judge()

    def lost(self, error: OSError | None) -> None:
        """Take notice that the connection is over."""
        self.close()
        if self.busy:
            if self._answer.status:  # a response without a length ends like that
                self._judge()
            else:
                self._end(f"no answer: {error.strerror or error}" if error else "no answer: the connection ended", 0)

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _judge(self) -> None:
        status = self._answer.status
        if 200 <= status < 300:
            self._end("", status)
        else:
            self._end(f"{status} {_reason(self._text) or self._answer.reason}".strip(), status)

    def _end(self, what: str, status: int) -> None:
        self.busy = False
        self._used = time.monotonic()
        if not self._answer.keeps:
            self.close()
        if what:
            self.doubtful.add(self.sent - 1)
        self._done(self, what, status)

    def _give_up(self, number: int) -> None:
        if self.busy and number == self.sent - 1:
            self.close()
            self._end(f"no answer within {self._patience:g} s", 0)


def write(numbered: Numbered, size: int) -> str:
    """Make the data of a message; :func:`read` reads it back."""
    return f"{numbered.sender} {numbered.number} {numbered.due:.6f} ".ljust(size, "x")


def read(run: str, data: str) -> Numbered | None:
    """Read what a sender of this run wrote; None for anything else."""
    if not data.startswith(run):
        return None
    sender, number, due, *_ = data.split(" ", 3)
    return Numbered(sender, int(number), float(due))


def _reason(text: bytes) -> str:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return str(answer["error"])[:200] if isinstance(answer, dict) and "error" in answer else ""
