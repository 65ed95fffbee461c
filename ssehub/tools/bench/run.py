"""Run: one measurement of a deployment, from the first connection to the report."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ssehub.client.served import served_by_all
from ssehub.tools.bench.inquiry import Inquiry
from ssehub.tools.bench.load import Load
from ssehub.tools.bench.loop import Loop
from ssehub.tools.bench.report import Report
from ssehub.tools.bench.sender import Sender
from ssehub.tools.bench.sequence_check import SequenceCheck
from ssehub.tools.bench.stream import Stream
from ssehub.tools.bench.subscribers import Subscribers
from ssehub.tools.bench.tally import Tally
from ssehub.tools.bench.target import BenchError, Target, raise_file_limit
from ssehub.tools.bench.watch import Watch

#: Number of descriptors for other uses than streams.
_OTHER_FILES = 64
#: Seconds between two progress reports.
_TELL = 0.25
#: Seconds from the last stream's first bytes to the first message, because a server may respond before it subscribes.
_BREATH = 0.2
#: Minimum number of streams that are expected to open per second.
_SLOWEST = 50
#: Seconds to wait for the statistics at the end.
_SHORT = 1.0
#: Maximum number of seconds to wait for messages after an interruption.
_LATE = 5.0


@dataclass(frozen=True)
class Plan:
    """The parameters of a measurement. Immutable.

    :param send_url: the endpoint to send messages to. None: send nothing, and watch messages of other senders.
    :param fields: fields of each message, in addition to the data.
    :param patience: maximum number of seconds to wait for a stream, a response, or the last message.
    :param stats_url: the endpoint with the statistics of the service; None: it is not asked.
    :raises ValueError: if a number is out of range.
    """

    url: str
    streams: int = 100
    rate: float = 10.0
    duration: float = 10.0
    size: int = 100
    send_url: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    send_headers: tuple[tuple[str, str], ...] = ()
    patience: float = 10.0
    stats_url: str | None = None
    stats_headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name, least, most in (
            ("streams", 1, 100_000), ("rate", 0.01, 100_000), ("duration", 0.01, 86_400), ("size", 1, 1 << 20),
            ("patience", 0.01, 3600),
        ):  # fmt: skip
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be {least} to {most}, not {getattr(self, name)}")


class Run:
    """One measurement. Everything happens in the thread that calls :meth:`run`.

    :param tell: called with a short text about the progress, several times per second.
    """

    def __init__(self, plan: Plan, tell: Callable[[str], object]) -> None:
        self._plan = plan
        self._tell = tell
        self._report = Report(plan.url, watched=plan.send_url is None, streams=plan.streams)
        self._loop = Loop()
        self._load: Load | None = None
        self._watch = Watch()
        take = self._watch.take
        if plan.send_url is not None:
            self._load = Load(
                self._loop, Target(plan.send_url, plan.send_headers), plan.fields,
                rate=plan.rate, duration=plan.duration, size=plan.size, patience=plan.patience,
            )  # fmt: skip
            self._tally = Tally(self._load.read)
            take = self._tally.take
        self._subscribers = Subscribers(self._loop, take, patience=plan.patience)
        #: The streams that were open when the first message was sent.
        self._judged: list[Stream] = []
        self._began = self._ended = 0.0
        #: Whether Ctrl-C was pressed.
        self._is_interrupted = False

    def run(self) -> Report:
        """Connect, send, wait for the last message, and report. After Ctrl-C it reports the results so far.

        :raises BenchError: if it cannot start.
        """
        with self._noting_interrupts():
            return self._run()

    @contextlib.contextmanager
    def _noting_interrupts(self) -> Iterator[None]:
        """Make the first Ctrl-C wait for the end of the loop's turn: otherwise data just read would count as lost."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def _note(number: int, frame: object) -> None:
            if self._is_interrupted:
                raise KeyboardInterrupt
            self._is_interrupted = True

        before = signal.signal(signal.SIGINT, _note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _run(self) -> Report:
        try:
            raise_file_limit(self._plan.streams + _OTHER_FILES)
            target = Target(self._plan.url, self._plan.headers)
            self._report.url = target.shown
            try:
                self._gather(target)
                self._measure()
                self._settle(self._plan.patience)
            except KeyboardInterrupt:
                self._report.interrupted = True
                if self._load is not None:
                    self._load.stop()
                self._settle(min(_LATE, self._plan.patience))
            self._subscribers.look_at_all()
            self._judge()
            self._ask()
        finally:
            self._subscribers.close()
            if self._load is not None:
                self._load.close()
            self._loop.close()
        return self._report

    def _gather(self, target: Target) -> None:
        """Connect one stream, and if it works, the others."""
        subscribers, wanted = self._subscribers, self._plan.streams
        began = time.monotonic()
        subscribers.add(target, 1, first=0)
        self._turn(
            lambda: subscribers.streams[0].opened or subscribers.refusals or subscribers.failures,
            self._plan.patience + 1,
        )
        if not subscribers.streams[0].opened:
            why = next(
                iter((*subscribers.refusals, *subscribers.failures)), f"no stream within {self._plan.patience:g} s"
            )
            raise BenchError(f"{target.shown}: {why}")
        subscribers.add(target, wanted - 1, first=0)
        self._turn(
            lambda: subscribers.open + sum(subscribers.refusals.values()) >= wanted,
            self._plan.patience + wanted / _SLOWEST,
            lambda: f"connecting: {subscribers.open:,} of {wanted:,}",
        )
        self._report.gathered_in = time.monotonic() - began
        self._turn(lambda: False, _BREATH)

    def _measure(self) -> None:
        self._judged = [stream for stream in self._subscribers.streams if stream.is_open]
        self._report.open_at_start = len(self._judged)
        if not self._judged:
            raise BenchError("no stream stayed open; the service may be full")
        self._loop.reset()
        self._began = time.monotonic()
        if self._load is None:
            self._turn(lambda: False, self._plan.duration, lambda: f"watching: {self._watch.received:,} deliveries")
        else:
            load = self._load
            load.start()
            self._turn(lambda: load.over, self._plan.duration + self._plan.patience, self._words)
            load.check()
        self._ended = time.monotonic()
        self._note_load()

    def _settle(self, patience: float) -> None:
        """Wait until all messages have arrived, or for a time; then a little longer, to notice duplicates."""
        if self._load is not None:
            self._turn(lambda: not self._missing(), patience, self._words, every=0.1)
            self._turn(lambda: False, min(_BREATH, patience))
        elif not self._report.interrupted:
            self._turn(lambda: False, _SHORT)

    def _turn(
        self,
        condition: Callable[[], object],
        patience: float,
        words: Callable[[], str] | None = None,
        every: float = 0.01,
    ) -> None:
        """Turn the loop until a condition is true, but no longer than a number of seconds.

        :param every: seconds between two checks of the condition.
        """
        deadline = time.monotonic() + patience
        look = tell = 0.0
        while (now := time.monotonic()) < deadline:
            if self._is_interrupted and not self._report.interrupted:
                raise KeyboardInterrupt
            if words is not None and now >= tell:
                tell = now + _TELL
                self._tell(words())
            if now >= look:
                look = now + every
                if condition():
                    return
            self._loop.turn(min(every, deadline - now))

    def _words(self) -> str:
        assert self._load is not None
        return f"sending: {self._load.accepted:,} accepted, {self._tally.latency.count:,} deliveries"

    def _note_load(self) -> None:
        self._report.lag, self._report.load = self._loop.lag.ranks(), self._loop.load

    def _missing(self) -> int:
        assert self._load is not None
        return sum(lost(stream.order(one.name), one) for stream in self._judged for one in self._load.senders)

    def _judge(self) -> None:
        """Compute the report from the counts."""
        report, subscribers = self._report, self._subscribers
        if not self._ended:
            self._ended = time.monotonic()
            self._note_load()
        report.duration = self._ended - self._began if self._began else 0.0
        report.open_at_end, report.reconnects = subscribers.open, subscribers.reconnects
        report.connect, report.first_byte = subscribers.connects.ranks(), subscribers.first_bytes.ranks()
        report.ends, report.failures, report.refusals = (
            dict(subscribers.ends),
            dict(subscribers.failures),
            dict(subscribers.refusals),
        )
        if self._load is None:
            self._judge_watch()
        else:
            self._judge_load(self._load)

    def _ask(self) -> None:
        """Ask the service how it serves the streams, while they are open. Only ssehub's service reports this."""
        if self._plan.stats_url is None or not self._report.open_at_end:
            return
        with contextlib.suppress(BenchError):  # it does not respond any more
            inquiry = Inquiry(self._loop, Target(self._plan.stats_url, self._plan.stats_headers))
            with contextlib.closing(inquiry), contextlib.suppress(KeyboardInterrupt):
                self._turn(lambda: inquiry.over, min(_SHORT, self._plan.patience))
                self._report.take_served(served_by_all(inquiry.value))

    def _judge_load(self, load: Load) -> None:
        report, tally = self._report, self._tally
        orders = [order for stream in self._judged for order in stream.orders.values()]
        report.offered, report.accepted, report.send_errors = load.offered, load.accepted, dict(load.errors)
        report.received, report.latency = tally.latency.count, tally.latency.ranks()
        report.offered_per_second = load.rate * len(self._judged)
        report.lost = self._missing()
        report.doubled = sum(order.doubles for order in orders)
        report.out_of_order = sum(order.late for order in orders)
        report.gaps, report.told_missing, report.others = tally.gaps, tally.told_missing, tally.others
        report.faults = tally.faults
        last = tally.last_arrival or self._ended
        report.deliveries_per_second = _rate(report.received, max(last - load.began, report.duration))

    def _judge_watch(self) -> None:
        report, watch = self._report, self._watch
        report.accepted, report.received, report.cursors = watch.messages, watch.received, watch.cursors
        report.latency = watch.spread.ranks()
        report.deliveries_per_second = _rate(report.received, report.duration)
        report.lost = watch.missing(self._judged, time.monotonic() - _SHORT)
        report.out_of_order = watch.backwards
        report.gaps, report.told_missing = watch.gaps, watch.told_missing


def lost(order: SequenceCheck, sender: Sender) -> int:
    """Return how many of a sender's accepted messages have not arrived at a stream."""
    due = order.next or 0
    doubtful = sum(number >= due or number in order.missing for number in sender.doubtful)
    return sender.sent - due + len(order.missing) - doubtful


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
