"""Load: sends messages at a rate, whether or not the service keeps up."""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from typing import Any

from ssehub.tools.bench.loop import Loop
from ssehub.tools.bench.sender import Sender, read
from ssehub.tools.bench.tally import Numbered
from ssehub.tools.bench.target import BenchError, Target

#: Number of concurrent messages. Further messages that are due have to wait, and the wait counts as latency.
_SENDERS = 8
#: Statuses that will be the same for every message.
_FINAL = frozenset((400, 401, 403, 404, 405, 411, 413, 415, 422))
_SERVICE = (
    "--send-url has to be the /send of ssehub's service, mounted beside your own routes; or send nothing, with --watch"
)
_HINTS = {401: "--token", 403: "--token, or another zone"}


class Load:
    """Sends messages for a time. Everything happens in the loop's thread.

    :param fields: fields of each message, in addition to the data.
    :param rate: messages per second.
    :param duration: seconds.
    :param size: number of characters of a message's data.
    :param patience: maximum number of seconds to wait for a response.

    :ivar accepted: number of messages that were accepted.
    :ivar errors: the reasons why others were not.
    :ivar refusal: the reason why no message will be accepted; or empty.
    """

    def __init__(
        self,
        loop: Loop,
        target: Target,
        fields: dict[str, Any],
        *,
        rate: float,
        duration: float,
        size: int,
        patience: float,
    ) -> None:
        self.rate = rate
        self.duration = duration
        self.accepted: int = 0
        self.errors: Counter[str] = Counter()
        self.refusal: str = ""
        self.began: float = 0.0
        self._loop = loop
        self._patience = patience
        self._shown = target.shown
        self._count = max(1, round(rate * duration))
        self._offered = 0
        self._due: deque[float] = deque()
        self._run = f"ssehub-bench-{secrets.token_hex(4)}"
        self._stopped = False
        self.senders: list[Sender] = [
            Sender(loop, target, f"{self._run}.{n}", fields, size, patience, self._note) for n in range(_SENDERS)
        ]

    @property
    def offered(self) -> int:
        """The number of messages that were due so far."""
        return self._offered

    @property
    def over(self) -> bool:
        """Whether the last message was due, and all responses have arrived."""
        all_sent = self._offered >= self._count and not self._due
        return (self._stopped or all_sent) and not any(one.busy for one in self.senders)

    def start(self) -> None:
        """Start; the first message is due now."""
        self.began = time.monotonic()
        self._offer()

    def stop(self) -> None:
        """Stop sending."""
        self._stopped = True
        self._due.clear()

    def close(self) -> None:
        """Close the connections."""
        for sender in self.senders:
            sender.close()

    def read(self, data: str) -> Numbered | None:
        """Parse the data of a message. Return None if it is not one of this load."""
        return read(self._run, data)

    def check(self) -> None:
        """Check whether the service accepts messages.

        :raises BenchError: if it accepts none.
        """
        if self.refusal:
            raise BenchError(self.refusal)

    def _offer(self) -> None:
        if self._stopped:
            return
        now = time.monotonic()
        while self._offered < self._count and (due := self.began + self._offered / self.rate) <= now:
            self._due.append(due)
            self._offered += 1
        self._send()
        if self._offered < self._count:
            self._loop.call_at(self.began + self._offered / self.rate, self._offer)
        else:
            # Messages that are due wait for the responses to earlier ones, and the wait counts. But it is limited.
            self._loop.call_at(self.began + self.duration + self._patience, self.stop)

    def _send(self) -> None:
        for sender in self.senders:
            if not self._due:
                return
            if not sender.busy:
                sender.send(self._due.popleft())

    def _note(self, sender: Sender, what: str, status: int) -> None:
        if not what:
            self.accepted += 1
        else:
            self.errors[what] += 1
            if status in _FINAL and not self.accepted:
                self.refusal = f"{self._shown}: {what}; {_HINTS.get(status, _SERVICE)}"
                self.stop()
        self._send()
