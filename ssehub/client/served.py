"""Served: how a hub serves its streams, parsed from the JSON of ``GET /stats``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Served(NamedTuple):
    """The number of open streams, by whether they hold a thread of the server. Immutable."""

    streams: int
    #: Streams that the hub's own thread writes, without a thread of the server.
    detached: int
    #: Streams that the hub's own thread writes, while a thread of the server waits until they end.
    parked: int
    #: Streams that the server's threads write.
    on_threads: int
    #: The reasons why streams stayed on the server's threads, each with a count, most frequent first.
    not_taken: Mapping[str, int]

    @property
    def holding(self) -> int:
        """The number of streams that hold a thread of the server."""
        return self.parked + self.on_threads

    @property
    def reason(self) -> str:
        """The most frequent reason why streams stay on the server's threads; empty if no reason is known."""
        return next(iter(self.not_taken), "")

    def __str__(self) -> str:
        parts = (("detached", self.detached), ("parked", self.parked), ("on the server's threads", self.on_threads))
        shown = ", ".join(f"{count:,} {name}" for name, count in parts if count)
        return f"{self.streams:,} open: {shown}" if shown else "no stream is open"


def served_by_process(stats: object) -> Served | None:
    """Return the numbers of one process.

    :param stats: the value of :meth:`ssehub.Hub.stats`, as JSON.
    :returns: None if the value is not that of a hub, or of a hub whose version does not report these numbers.
    """
    if not isinstance(stats, Mapping):
        return None
    streams, taken_over, detached = (_count(stats.get(name)) for name in ("connections", "taken_over", "detached"))
    if streams is None or taken_over is None or detached is None:
        return None
    parked = max(0, taken_over - detached)
    return Served(streams, detached, parked, max(0, streams - taken_over), _reasons([stats.get("not_taken")]))


def served_by_all(answer: object) -> Served | None:
    """Return the total of all processes, or the numbers of the one that responded if it does not list the others.

    :param answer: the JSON of ``GET /stats``. The numbers of other processes may be some seconds old.
    """
    if not isinstance(answer, Mapping):
        return None
    listed = answer.get("processes")
    others = [one.get("stats") for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    found = [one for one in map(served_by_process, others or [answer.get("stats")]) if one is not None]
    if not found:
        return None
    streams, detached, parked, on_threads = (sum(numbers) for numbers in zip(*(one[:4] for one in found), strict=True))
    return Served(streams, detached, parked, on_threads, _reasons(one.not_taken for one in found))


def _reasons(counts: Iterable[object]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        if isinstance(one, Mapping):
            total.update({str(reason): number for reason, value in one.items() if (number := _count(value))})
    return dict(total.most_common())


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
