"""Load: messages at a rate, whether or not the service keeps up."""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from typing import Any

from ssehub.tools.bench.loop import Loop
from ssehub.tools.bench.sender import Sender, read
from ssehub.tools.bench.tally import Numbered
from ssehub.tools.bench.target import BenchError, Target

#: Messages under way at a time; what is due beyond them waits, and its waiting counts.
_SENDERS = 8
#: Answers that will be the same for every message.
_FINAL = frozenset((400, 401, 403, 404, 405, 411, 413, 415, 422))
_SERVICE = (
    "--send-url has to be the /send of ssehub's service, mounted beside your own routes; or --watch sends nothing"
)
_HINTS = {401: "--token", 403: "--token, or another zone"}


class Load:
    """Send messages for a while. Everything happens in the loop's thread.

    :param fields: of each message, beside the data.
    :param rate: messages a second.
    :param duration: seconds.
    :param size: characters of a message's data.
    :param patience: seconds to wait for an answer.

    :ivar accepted: messages that were accepted.
    :ivar errors: why others were not.
    :ivar refusal: why there is no use in sending, or nothing.
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
        """Messages that were due so far."""
        return self._offered

    @property
    def over(self) -> bool:
        """Whether the last was due, and nothing is under way."""
        all_sent = self._offered >= self._count and not self._due
        return (self._stopped or all_sent) and not any(one.busy for one in self.senders)

    def start(self) -> None:
        """Begin; the first message is due now."""
        self.began = time.monotonic()
        self._offer()

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True
        self._due.clear()

    def close(self) -> None:
        """End the connections."""
        for sender in self.senders:
            sender.close()

    def read(self, data: str) -> Numbered | None:
        """Read a message's data; None if it is not one of these."""
        return read(self._run, data)

    def check(self) -> None:
        """Give up if the service will not take anything.

        :raises BenchError: then.
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
            # What was due waits for an answer to the ones before, and its wait counts; but not for ever.
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
