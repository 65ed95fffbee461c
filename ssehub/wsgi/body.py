"""Body: the iterator that the server takes as a response's body.

The *life* of a connection is the generator that registers it, yields its chunks, and removes it in its ``finally``.
"""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Generator, Iterator

Life = Generator[bytes, None, None]
OnClose = list[Callable[[], None]]


class Bodies:
    """Keeps a reference to each life until it is over.

    When a generator is garbage collected, its ``finally`` runs in whatever thread the collector runs in, even one that
    holds one of our locks. To avoid this, each life that has started is kept here. If a body is dropped without
    ``close()``, :meth:`reap` ends its life in a safe thread.

    :param run: runs a function soon, in a thread where it may block: the end of a life runs hooks.
    """

    def __init__(self, run: Callable[[Callable[[], None]], None]) -> None:
        self._run = run
        #: Called when a body was dropped, in any thread. It must not take a lock.
        self.on_drop: Callable[[], None] = lambda: None
        self._begun: set[Life] = set()
        self._dropped: collections.deque[Life] = collections.deque()

    def make(self, live: Callable[[OnClose], Life]) -> Body:
        """Make a body.

        :param live: returns the generator that is the life of the body. It starts when the server asks for the first
            bytes. Its argument is a list; functions that it adds are called when the server is done with the response.
        """
        on_close: OnClose = []
        return Body(self, live(on_close), on_close)

    def begin(self, life: Life) -> None:
        """Keep a life from now on."""
        self._begun.add(life)

    def end(self, life: Life) -> None:
        """Remove a life that is over."""
        self._begun.discard(life)

    def drop(self, life: Life) -> None:
        """Note that a life will not be iterated or closed any more."""
        if life in self._begun:
            self._dropped.append(life)
            self.on_drop()

    def reap(self) -> None:
        """End the lives whose bodies were dropped. Thread-safe."""
        with contextlib.suppress(IndexError):
            while True:
                self._run(functools.partial(self._close, self._dropped.popleft()))

    def _close(self, life: Life) -> None:
        try:
            life.close()
        finally:
            self.end(life)


class Body(Iterator[bytes]):
    """The body of one response. One thread iterates it, and closes it when the client has disconnected."""

    def __init__(self, bodies: Bodies, life: Life, on_close: OnClose) -> None:
        self._bodies = bodies
        self._life = life
        self._on_close = on_close

    def __next__(self) -> bytes:
        self._bodies.begin(self._life)
        try:
            return next(self._life)
        except BaseException:  # includes StopIteration
            self._bodies.end(self._life)
            raise

    def close(self) -> None:
        """End the life. A WSGI server always calls this (PEP 3333)."""
        self._life.close()
        self._bodies.end(self._life)
        while self._on_close:
            self._on_close.pop()()

    def __del__(self) -> None:
        self._bodies.drop(self._life)
