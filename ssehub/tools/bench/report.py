"""Report: the results of a measurement, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ssehub.client.served import Served

#: A note about the generator's own lag is added if it is more than this, in seconds, and this share of the latency.
_LAG, _LAG_SHARE = 0.01, 0.25
#: The share of a processor above which the generator counts as saturated.
_LOAD = 0.9


@dataclass
class Report:
    """The results of a measurement. Times are in seconds, rates in 1/s."""

    url: str
    watched: bool
    streams: int
    open_at_start: int = 0
    open_at_end: int = 0
    gathered_in: float = 0.0
    connect: dict[str, float] = field(default_factory=dict)
    first_byte: dict[str, float] = field(default_factory=dict)
    #: From the time at which a message was due to its arrival. With --watch: from its first arrival at any stream.
    latency: dict[str, float] = field(default_factory=dict)
    duration: float = 0.0
    offered: int = 0
    accepted: int = 0
    received: int = 0
    deliveries_per_second: float = 0.0
    offered_per_second: float = 0.0
    #: Accepted messages that have not arrived, summed over the streams.
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    gaps: int = 0
    told_missing: int = 0
    cursors: int = 0
    others: int = 0
    reconnects: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    send_errors: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    lag: dict[str, float] = field(default_factory=dict)
    load: float = 0.0
    interrupted: bool = False
    #: How the server serves its streams: the numbers ``streams``, ``detached``, ``parked`` and ``on_threads``; and
    #: ``not_taken``, the reasons why streams stayed on threads since the start, with counts. Empty if it is not known.
    served: dict[str, Any] = field(default_factory=dict)

    @property
    def saturated(self) -> bool:
        """Whether the generator itself was too slow, so that the results are not those of the service alone."""
        late = self.lag.get("p99", 0.0)
        return late > max(_LAG, _LAG_SHARE * self.latency.get("p99", 0.0)) or self.load > _LOAD

    @property
    def right(self) -> bool:
        """Whether each stream was open until the end, and received every message once and in order."""
        wrong = self.lost or self.doubled or self.out_of_order or self.send_errors
        return not wrong and self.open_at_end >= self.streams and (self.watched or self.accepted == self.offered > 0)

    def take_served(self, served: Served | None) -> None:
        """Store how the server serves its streams."""
        self.served = {} if served is None else served._asdict()

    def as_json(self) -> dict[str, Any]:
        """Return all results as a JSON object."""
        return {**asdict(self), "saturated": self.saturated, "right": self.right}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield the names and values of the table."""
        yield "streams", f"{self.open_at_start:,} of {self.streams:,} in {self.gathered_in:.1f} s"
        if self.served:
            yield from _served_lines(Served(**self.served))
        yield "connect", _times(self.connect)
        yield "first byte", _times(self.first_byte)
        if self.watched:
            yield "messages", f"{self.accepted:,} from other senders in {self.duration:.1f} s; {self.cursors:,} cursors"
            yield "spread", _times(self.latency)
        else:
            yield "messages", f"{self.accepted:,} accepted of {self.offered:,} offered in {self.duration:.1f} s"
            yield "latency", _times(self.latency)
        offered = "" if self.watched else f", {self.offered_per_second:,.0f}/s offered"
        yield "deliveries", f"{self.received:,}; {self.deliveries_per_second:,.0f}/s{offered}"
        yield "lost", f"{self.lost:,}"
        yield "doubled", f"{self.doubled:,}"
        yield "out of order", f"{self.out_of_order:,}"
        missing = f", {self.told_missing:,} messages missing" if self.told_missing else ""
        yield "gaps told", f"{self.gaps:,}{missing}"
        yield "reconnects", f"{self.reconnects:,}; {self.open_at_end:,} streams at the end"
        for name, counts in (
            ("ended", self.ends),
            ("not connected", self.failures),
            ("refused", self.refusals),
            ("not sent", self.send_errors),
        ):
            for what, count in counts.items():
                yield name, f"{count:,} times: {what}"
        if self.others:
            yield "others'", f"{self.others:,} messages of other senders"
        yield "generator", f"{self.load:.0%} of a processor, late by {_ms(self.lag, 'p99')} (p99)"
        if self.accepted and not self.received and not self.watched:
            yield "note", "nothing arrived: do the streams follow the zone of the messages? set it with --zone"
        for fault in self.faults[:3]:
            yield "for example", fault
        if self.saturated:
            yield "note", "the generator was saturated: the latencies are partly its own"
        if self.interrupted:
            yield "note", "interrupted: messages count as lost if they did not arrive within a short wait"


def _served_lines(served: Served) -> Iterator[tuple[str, str]]:
    yield "served", str(served)
    if served.on_threads:
        for reason, count in served.not_taken.items():
            yield "on threads", f"{count:,} times since the start: {reason}"


def _times(ranks: dict[str, float]) -> str:
    if not ranks:
        return "none"
    return ", ".join(f"{name} {_ms(ranks, name)}" for name in ("p50", "p90", "p99", "max"))


def _ms(ranks: dict[str, float], name: str) -> str:
    value = ranks.get(name, 0.0) * 1000
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"
