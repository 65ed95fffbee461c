"""Session: what is known of one stream so far: its recordings, the service beside it, the facts that this tells."""

from __future__ import annotations

import time
from typing import Any

from ssehub.tools.doctor.recording import Recording
from ssehub.tools.doctor.service import Answer, Service
from ssehub.tools.doctor.target import Target

#: Seconds that a stream is watched whose heartbeat nobody tells: most send one every 15.
_TIME = 20.0
#: Seconds to wait for what should come at once, at the most.
_PATIENCE = 3.0
#: Of the facts that are reckoned with.
_TYPES: dict[str, Any] = dict.fromkeys(("threads", "processes", "max_connections", "retry", "pid"), int | None)
_TYPES |= {"heartbeat": int | float, "software": str, "worker": str, "detach": bool | None}
#: Seconds that a heartbeat is waited for, at the most, unless --time says more.
_LONGEST = 120.0
#: Of numbers that are told; larger ones are no facts.
_MOST = 10**12


class Session:
    """Hold what is known so far. It belongs to one thread."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.service: Service = Service(target)
        self.began: float = time.monotonic()
        #: How an ordinary request went while no stream was open here.
        self.alone: Answer = Answer(0.0)
        #: How the last one went while streams were open here.
        self.beside: Answer | None = None
        self.main: Recording | None = None
        #: The streams beside it.
        self.others: list[Recording] = []
        #: Whether ordinary requests are not answered beside the streams.
        self.is_stuck = False
        #: Whether the first stream's head and beginning are judged.
        self.is_judged = False
        #: Whether the watching is over, and judged.
        self.is_watched = False
        self._opened: list[Recording] = []

    @property
    def facts(self) -> dict[str, Any] | None:
        """What the service tells of its server and its hub, or None. What is not of its type or size is left out."""
        facts = (self.alone.value or {}).get("server")
        if not isinstance(facts, dict):
            return None
        return {
            name: value
            for name, value in facts.items()
            if isinstance(value, _TYPES.get(name, object)) and not (_is_number(value) and abs(value) > _MOST)
        }

    @property
    def heartbeat(self) -> float | None:
        """The hub's heartbeat in seconds, if it is told."""
        value = (self.facts or {}).get("heartbeat")
        return float(value) if value and value > 0 else None

    @property
    def time(self) -> float:
        """Seconds that the stream is watched."""
        if self.target.time is not None:
            return self.target.time
        return _TIME if self.heartbeat is None else min(1.5 * self.heartbeat + 2.0, _LONGEST)

    @property
    def patience(self) -> float:
        """Seconds to wait for what should come at once."""
        return min(_PATIENCE, self.time / 2)

    @property
    def remaining(self) -> float:
        """Seconds left of those that the stream is watched."""
        return max(0.0, self.began + self.time - time.monotonic())

    @property
    def is_open(self) -> bool:
        """Whether there is a stream."""
        return self.main is not None and self.main.is_stream

    @property
    def streams(self) -> list[Recording]:
        """All streams that have begun."""
        return [one for one in (self.main, *self.others) if one is not None and one.is_stream]

    def open(self, **headers: str) -> Recording:
        """Open a stream as a browser does.

        :param headers: more of them.
        """
        own = {"Accept": "text/event-stream", "Cache-Control": "no-cache", "Accept-Encoding": "gzip, deflate"}
        if self.target.origin:
            own["Origin"] = self.target.origin
        longest = self.time + 2 * _PATIENCE
        recording = Recording(self.target.url, self.target.options(self.target.url, **own, **headers), longest)
        self._opened.append(recording)
        return recording

    def close(self) -> None:
        """Leave all streams."""
        for one in self._opened:
            one.close()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
