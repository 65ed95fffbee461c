"""A hook: a list of callbacks that cannot break their caller."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

from ssehub.exceptions import HubClosed
from ssehub.logger import logger

P = ParamSpec("P")
R = TypeVar("R")


class Hook(Generic[P]):
    """Collect callbacks and call them in the order they were added.

    A hook is used as a decorator (``@hub.on_connection``) or called with a function. Callbacks are held strongly.
    Safe to use from any thread; callbacks run in the thread that fires, never under a lock of ssehub.

    :param name: what log records call this hook.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._callbacks: tuple[Callable[P, object], ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is a callback."""
        return bool(self._callbacks)

    def __call__(self, callback: Callable[P, R]) -> Callable[P, R]:
        """Add a callback and return it unchanged, so that this also works as a decorator.

        :param callback: called with the hook's arguments; what it returns is ignored.
        :raises TypeError: if it cannot be called, or is an async function.
        """
        if not callable(callback):
            raise TypeError(f"{self.name} needs something to call, not {type(callback).__name__}")
        check_plain(self.name, callback)
        # A new tuple each time: whoever is firing goes on with the one it began with.
        self._callbacks = (*self._callbacks, callback)
        return callback

    def remove(self, callback: Callable[P, object]) -> None:
        """Take a callback out again.

        :raises ValueError: if it is not there.
        """
        if callback not in self._callbacks:
            raise ValueError(f"{callback!r} was not added to {self.name}")
        index = self._callbacks.index(callback)
        self._callbacks = self._callbacks[:index] + self._callbacks[index + 1 :]

    def fire(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call every callback; an exception in one is logged and stops neither the others nor the caller."""
        for callback in self._callbacks:
            try:
                callback(*args, **kwargs)
            except HubClosed:  # one that tells the others who has left does not know that all are leaving
                logger.debug("%s: %r found the hub closed", self.name, callback)
            except Exception:
                logger.exception("%s: %r failed", self.name, callback)


def check_plain(name: str, callback: object) -> None:
    """Refuse an async function: to call it only makes a coroutine, which nobody would run.

    :param name: what the function is for.
    :raises TypeError: if it is one.
    """
    call = getattr(callback, "__call__", None)  # noqa: B004 - an object may have an async one
    if any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in (callback, call)):
        raise TypeError(f"{name} needs a plain function, not an async one: {callback!r}")
