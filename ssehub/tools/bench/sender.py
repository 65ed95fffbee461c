"""Sender: sends numbered messages to a service over one connection, one after the other."""

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

#: Seconds after which an idle connection is not reused: the service may close it at any moment, and it would not be
#: known whether a message sent then has arrived. gunicorn closes an idle connection after 2 s.
_REST = 0.5
#: Maximum size of a response in bytes. That of ``/send`` has about a hundred.
_LONGEST = 1 << 20


class Sender:
    """Sends messages, each after the response to the previous one, so that their order in the log is known.

    Everything happens in the loop's thread.

    :param name: the name of the sender in its messages; unique.
    :param fields: fields of each message, in addition to the data.
    :param size: number of characters of the data, which are at least those of the sender's name and the numbers.
    :param done: called after each response with the reason of a failure, which is empty if the message was accepted,
        and the HTTP status, which is 0 without a response.

    :ivar sent: number of messages that were sent or tried. Their numbers start at 0.
    :ivar doubtful: the numbers of messages that were not accepted, as far as is known.
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

        :param due: the time at which it was due (``time.monotonic()``).
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
        """Send the data that waits for the connection."""
        self._is_ready = True
        if self._connection is not None and self.busy:
            self._connection.write(self._request)

    def received(self, data: bytes) -> None:
        """Process a part of the response."""
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
            self._end(f"{self._answer.status} with a response that does not end", self._answer.status)
        elif self._answer.ended:
            self._judge()

    def lost(self, error: OSError | None) -> None:
        """Note that the connection has ended."""
        self.close()
        if self.busy:
            if self._answer.status:  # the end of a response without a length
                self._judge()
            else:
                self._end(f"no response: {error.strerror or error}" if error else "no response: connection ended", 0)

    def close(self) -> None:
        """Close the connection."""
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
            self._end(f"no response within {self._patience:g} s", 0)


def write(numbered: Numbered, size: int) -> str:
    """Return the data of a message. :func:`read` parses it."""
    return f"{numbered.sender} {numbered.number} {numbered.due:.6f} ".ljust(size, "x")


def read(run: str, data: str) -> Numbered | None:
    """Parse data that a sender of this run wrote. Return None for other data."""
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
