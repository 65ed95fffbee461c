"""Body: what the server iterates as a response's body."""

from __future__ import annotations

import collections
from collections.abc import Callable, Generator, Iterator


class Bodies:
    """Keep the lives of connections until they are over.

    A generator's ``finally`` runs wherever its last reference goes, and in a cycle that is wherever the garbage
    collector happens to run: also in a thread that holds one of our locks. So each life that has begun is held here,
    and one whose body was dropped without ``close()`` is ended by a thread that may: whoever calls :meth:`bury`.
    """

    def __init__(self) -> None:
        #: Called when a body was dropped, in whatever thread; it must take no lock.
        self.on_drop: Callable[[], None] = lambda: None
        self._begun: set[Generator[bytes, None, None]] = set()
        self._dropped: collections.deque[Generator[bytes, None, None]] = collections.deque()

    def make(self, life: Generator[bytes, None, None]) -> Body:
        """Make the body of a life that has not begun."""
        return Body(self, life)

    def begin(self, life: Generator[bytes, None, None]) -> None:
        """Hold a life from now on."""
        self._begun.add(life)

    def end(self, life: Generator[bytes, None, None]) -> None:
        """Let go of a life that is over."""
        self._begun.discard(life)

    def drop(self, life: Generator[bytes, None, None]) -> None:
        """Note that nobody will iterate a life any more, or close it."""
        if life in self._begun:
            self._dropped.append(life)
            self.on_drop()

    def bury(self) -> None:
        """End the lives whose bodies were dropped."""
        while self._dropped:
            life = self._dropped.popleft()
            life.close()
            self.end(life)


class Body(Iterator[bytes]):
    """Be the body of one response. One thread iterates it, and closes it when the client is gone."""

    def __init__(self, bodies: Bodies, life: Generator[bytes, None, None]) -> None:
        self._bodies = bodies
        self._life = life

    def __next__(self) -> bytes:
        self._bodies.begin(self._life)
        try:
            return next(self._life)
        except BaseException:  # its end, too
            self._bodies.end(self._life)
            raise

    def close(self) -> None:
        """End the life; a WSGI server calls this in every case (PEP 3333)."""
        self._life.close()
        self._bodies.end(self._life)

    def __del__(self) -> None:
        self._bodies.drop(self._life)
