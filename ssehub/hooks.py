"""Hook: a list of callbacks. An exception in a callback does not reach the code that calls the hook."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

from ssehub.exceptions import HubClosed
from ssehub.logger import logger

P = ParamSpec("P")
R = TypeVar("R")


class Hook(Generic[P]):
    """A list of callbacks that are called in the order in which they were added.

    Use a hook as a decorator (``@hub.on_connection``), or call it with a function. A hook holds strong references to
    its callbacks. Safe to use from any thread. Callbacks run in the thread that reports the event, never under a
    lock of ssehub.

    :param name: the hook's name in log records.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._callbacks: tuple[Callable[P, object], ...] = ()

    def __bool__(self) -> bool:
        """Return whether the hook has a callback."""
        return bool(self._callbacks)

    def __call__(self, callback: Callable[P, R]) -> Callable[P, R]:
        """Add a callback and return it unchanged, so that this also works as a decorator.

        :param callback: called with the hook's arguments; its result is ignored.
        :raises TypeError: if the callback cannot be called, or is an async function.
        """
        if not callable(callback):
            raise TypeError(f"{self.name} needs a function, not {type(callback).__name__}")
        check_plain(self.name, callback)
        # A new tuple each time, so that a `fire` in another thread finishes with the old one.
        self._callbacks = (*self._callbacks, callback)
        return callback

    def remove(self, callback: Callable[P, object]) -> None:
        """Remove a callback.

        :raises ValueError: if the hook does not have it.
        """
        if callback not in self._callbacks:
            raise ValueError(f"{callback!r} was not added to {self.name}")
        index = self._callbacks.index(callback)
        self._callbacks = self._callbacks[:index] + self._callbacks[index + 1 :]

    def fire(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call every callback. If one raises an exception, it is logged, and the next callback is called."""
        for callback in self._callbacks:
            try:
                callback(*args, **kwargs)
            except HubClosed:  # usual: an on_disconnect callback sends a message while the hub is closing
                logger.debug("%s: %r failed because the hub is closed", self.name, callback)
            except Exception:
                logger.exception("%s: %r failed", self.name, callback)


def check_plain(name: str, callback: object) -> None:
    """Reject an async function: calling it only creates a coroutine, which nothing would run.

    :param name: the word for the function in error texts.
    :raises TypeError: if the function is async.
    """
    call = getattr(callback, "__call__", None)  # noqa: B004 - an object's may be async
    if any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in (callback, call)):
        raise TypeError(f"{name} needs a plain function, not an async one: {callback!r}")
