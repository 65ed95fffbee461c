"""Iteration: iterates an application's generator in a thread of its own, so that its stream can have heartbeats.

The generator's thread and the thread that serves the request take turns. Only when the server wants the next item, the
generator runs. So it never runs ahead of the client. The server's thread waits for the item, with a limit.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import queue
import threading
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

from ssehub.logger import logger


class Item(NamedTuple):
    """What the generator has brought: a value, or the exception that has ended it."""

    value: Any
    error: BaseException | None = None


class Iteration:
    """The items of an iterator, taken in the calling thread."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def next(self) -> Item | None:
        """Return the next item. At the end, it has a :class:`StopIteration`.

        :returns: None if there is no item yet, and the next call has to wait for it.
        """
        try:
            return Item(next(self._iterator))
        except Exception as error:
            return Item(None, error)

    def close(self) -> None:
        """Close the iterator."""
        close_iterator(self._iterator)


class PatientIteration(Iteration):
    """The items of an iterator, taken in a daemon thread, ``ssehub-iterator``. One thread uses this object.

    The thread has a copy of the context variables of the thread that makes this object.

    :param patience: seconds after which :meth:`next` returns None.
    :raises RuntimeError: if no thread can be started.
    """

    def __init__(self, iterator: Iterator[Any], patience: float) -> None:
        super().__init__(iterator)
        self._patience = patience
        # Resolved at run time, because gevent patches the module after import.
        self._asked: queue.Queue[bool] = queue.Queue()
        self._found: queue.Queue[Item] = queue.Queue()
        self._is_waiting = False
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(_serve, iterator, self._asked, self._found), name="ssehub-iterator", daemon=True
        )
        self._thread.start()

    def next(self) -> Item | None:
        """Return the next item, or None if it has not come in time."""
        if not self._is_waiting:
            self._asked.put(True)
        self._is_waiting = True
        try:
            found = self._found.get(timeout=self._patience)
        except queue.Empty:
            return None
        self._is_waiting = False
        return found

    def close(self) -> None:
        """Close the iterator. If it is about to bring an item, its thread closes it then; do not wait for that."""
        self._asked.put(False)
        if not self._is_waiting:
            self._thread.join()


def iterate(iterable: Iterable[Any], patience: float | None) -> Iteration:
    """Begin to iterate, in a thread of its own if the next item may take long and another thread can take it.

    :param patience: seconds after which :meth:`Iteration.next` returns None; None for no limit.
    """
    iterator = iter(iterable)
    if patience is not None and _may_wait(iterable):
        with contextlib.suppress(RuntimeError):  # no more threads can be started
            return PatientIteration(iterator, patience)
    return Iteration(iterator)


def close_iterator(iterator: Iterator[Any]) -> None:
    """Close an iterator, if it can be closed. If that fails, log it."""
    close = getattr(iterator, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception:
        logger.exception("a generator could not be closed")


def _may_wait(iterable: Iterable[Any]) -> bool:
    # A generator that has begun may depend on its thread, as those of Flask's `stream_with_context`.
    if inspect.isgenerator(iterable):
        return inspect.getgeneratorstate(iterable) == inspect.GEN_CREATED
    return not isinstance(iterable, Collection)


def _serve(iterator: Iterator[Any], asked: queue.Queue[bool], found: queue.Queue[Item]) -> None:
    """Bring items as they are asked for, and close the iterator at the end. Runs in the thread."""
    try:
        while asked.get():
            found.put(Item(next(iterator)))
    except BaseException as error:
        found.put(Item(None, error))
    finally:
        close_iterator(iterator)
