"""Session: everything that is known about one stream so far: its recordings, and the facts from the service."""

from __future__ import annotations

import time
from typing import Any

from ssehub.tools.doctor.recording import Recording
from ssehub.tools.doctor.service import Answer, Service
from ssehub.tools.doctor.target import Target

#: Seconds for which a stream is watched if its heartbeat is not known. Most servers send one every 15 s.
_TIME = 20.0
#: Maximum number of seconds to wait for data that should arrive at once.
_PATIENCE = 3.0
#: The types of the facts that are used.
_TYPES: dict[str, Any] = dict.fromkeys(("threads", "processes", "max_connections", "retry", "pid"), int | None)
_TYPES |= {"heartbeat": int | float, "software": str, "worker": str, "detach": bool | None}
#: Maximum number of seconds to wait for a heartbeat, unless --time is longer.
_LONGEST = 120.0
#: Maximum value of a number in the facts. Larger ones are ignored.
_MOST = 10**12


class Session:
    """The state of an examination. It belongs to one thread."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.service: Service = Service(target)
        self.began: float = time.monotonic()
        #: The result of an ordinary request while no stream was open here.
        self.alone: Answer = Answer(0.0)
        #: The result of the last ordinary request while streams were open here.
        self.beside: Answer | None = None
        self.main: Recording | None = None
        #: The other streams.
        self.others: list[Recording] = []
        #: Whether ordinary requests get no response while the streams are open.
        self.is_stuck = False
        #: Whether the head and the beginning of the first stream are checked.
        self.is_judged = False
        #: Whether the first stream has been watched and checked.
        self.is_watched = False
        self._opened: list[Recording] = []

    @property
    def facts(self) -> dict[str, Any] | None:
        """The facts about the server and the hub, or None. Values with a wrong type or size are left out."""
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
        """The hub's heartbeat in seconds, if it is known."""
        value = (self.facts or {}).get("heartbeat")
        return float(value) if value and value > 0 else None

    @property
    def time(self) -> float:
        """The number of seconds for which the stream is watched."""
        if self.target.time is not None:
            return self.target.time
        return _TIME if self.heartbeat is None else min(1.5 * self.heartbeat + 2.0, _LONGEST)

    @property
    def patience(self) -> float:
        """The number of seconds to wait for data that should arrive at once."""
        return min(_PATIENCE, self.time / 2)

    @property
    def remaining(self) -> float:
        """The remaining seconds for which the stream is watched."""
        return max(0.0, self.began + self.time - time.monotonic())

    @property
    def is_open(self) -> bool:
        """Whether there is a stream."""
        return self.main is not None and self.main.is_stream

    @property
    def streams(self) -> list[Recording]:
        """All streams that have begun."""
        return [one for one in (self.main, *self.others) if one is not None and one.is_stream]

    @property
    def epochs(self) -> frozenset[tuple[int, int]] | None:
        """The partitions of the log that the first stream reads, each with its epoch; None if they are not known."""
        return None if self.main is None else self.main.epochs

    def open(self, **headers: str) -> Recording:
        """Open a stream as a browser does.

        :param headers: more request headers.
        """
        own = {"Accept": "text/event-stream", "Cache-Control": "no-cache", "Accept-Encoding": "gzip, deflate"}
        if self.target.origin:
            own["Origin"] = self.target.origin
        longest = self.time + 2 * _PATIENCE
        recording = Recording(self.target.url, self.target.options(self.target.url, **own, **headers), longest)
        self._opened.append(recording)
        return recording

    def close(self) -> None:
        """Disconnect all streams."""
        for one in self._opened:
            one.close()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
