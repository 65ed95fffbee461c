"""Served: how the streams of a hub are served, read from the JSON that a service gives at ``GET /stats``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Served(NamedTuple):
    """Hold how many streams are open, and what each of them holds of the server. Immutable."""

    streams: int
    #: Streams that the hub's own thread writes, and that hold no thread of the server.
    detached: int
    #: Streams that the hub's own thread writes while a thread of the server waits for their end.
    parked: int
    #: Streams that the server's threads write.
    on_threads: int
    #: Why streams stayed on the server's threads, and how many each, since the start. The most frequent is first.
    not_taken: Mapping[str, int]

    @property
    def holding(self) -> int:
        """Streams that hold a thread of the server."""
        return self.parked + self.on_threads

    @property
    def reason(self) -> str:
        """Why streams stay on the server's threads: the most frequent reason; empty if no reason is known."""
        return next(iter(self.not_taken), "")

    def __str__(self) -> str:
        parts = (("detached", self.detached), ("parked", self.parked), ("on the server's threads", self.on_threads))
        shown = ", ".join(f"{count:,} {name}" for name, count in parts if count)
        return f"{self.streams:,} open: {shown}" if shown else "no stream is open"


def served_by_process(stats: object) -> Served | None:
    """Read the numbers of one process.

    :param stats: what :meth:`ssehub.Hub.stats` has returned, as JSON.
    :returns: None if the process is not one of a hub, or of a hub that does not count this yet.
    """
    if not isinstance(stats, Mapping):
        return None
    streams, taken_over, detached = (_count(stats.get(name)) for name in ("connections", "taken_over", "detached"))
    if streams is None or taken_over is None or detached is None:
        return None
    parked = max(0, taken_over - detached)
    return Served(streams, detached, parked, max(0, streams - taken_over), _reasons([stats.get("not_taken")]))


def served_by_all(answer: object) -> Served | None:
    """Read the numbers of all processes, or of the one that has answered if it does not list the others.

    :param answer: the JSON of ``GET /stats``. Numbers of other processes may be some seconds old.
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
