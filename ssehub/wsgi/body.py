"""Body: what the server iterates as a response's body."""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Generator, Iterator

Life = Generator[bytes, None, None]
OnClose = list[Callable[[], None]]


class Bodies:
    """Holds the lives of connections until they are over.

    A generator's ``finally`` runs wherever its last reference goes, and in a cycle that is wherever the garbage
    collector happens to run: also in a thread that holds one of our locks. So each life that has begun is held here,
    and one whose body was dropped without ``close()`` is ended by a thread that may do it: see :meth:`reap`.

    :param run: runs a function soon, in a thread that nobody relies on: the end of a life runs hooks.
    """

    def __init__(self, run: Callable[[Callable[[], None]], None]) -> None:
        self._run = run
        #: Called when a body was dropped, in whatever thread; it must take no lock.
        self.on_drop: Callable[[], None] = lambda: None
        self._begun: set[Life] = set()
        self._dropped: collections.deque[Life] = collections.deque()

    def make(self, live: Callable[[OnClose], Life]) -> Body:
        """Make a body.

        :param live: makes the life of the body; it does not begin before the server asks for the first bytes. It is
            given a list, and what it puts there is called when the server is done with the response.
        """
        on_close: OnClose = []
        return Body(self, live(on_close), on_close)

    def begin(self, life: Life) -> None:
        """Hold a life from now on."""
        self._begun.add(life)

    def end(self, life: Life) -> None:
        """Let go of a life that is over."""
        self._begun.discard(life)

    def drop(self, life: Life) -> None:
        """Note that a life will be neither iterated nor closed any more."""
        if life in self._begun:
            self._dropped.append(life)
            self.on_drop()

    def reap(self) -> None:
        """Have the lives ended whose bodies were dropped. Any thread may call this."""
        with contextlib.suppress(IndexError):
            while True:
                self._run(functools.partial(self._close, self._dropped.popleft()))

    def _close(self, life: Life) -> None:
        try:
            life.close()
        finally:
            self.end(life)


class Body(Iterator[bytes]):
    """The body of one response. One thread iterates it, and closes it when the client is gone."""

    def __init__(self, bodies: Bodies, life: Life, on_close: OnClose) -> None:
        self._bodies = bodies
        self._life = life
        self._on_close = on_close

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
        while self._on_close:
            self._on_close.pop()()

    def __del__(self) -> None:
        self._bodies.drop(self._life)
