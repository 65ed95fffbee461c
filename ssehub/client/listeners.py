"""Listeners: callbacks by the type of the event they want."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, overload

from ssehub.hooks import Hook
from ssehub.wire import Received

Callback = Callable[[Received], object]
C = TypeVar("C", bound=Callback)

#: What the names of a hub's own events begin with. Whoever does not ask for them by name never sees them.
OWN = "ssehub."


class Listeners:
    """Collect callbacks for events, several for each type. Safe to use from any thread.

    Used as a decorator, ``@client.on_event("score")`` or ``@client.on_event`` for every type, or called:
    ``client.on_event("score", callback)``. ``"message"`` is the type of an event that names none.
    """

    def __init__(self) -> None:
        self._by_type: dict[str | None, Hook[[Received]]] = {}

    @overload
    def __call__(self, type: C) -> C: ...
    @overload
    def __call__(self, type: str | None, callback: C) -> C: ...
    @overload
    def __call__(self, type: str | None = None) -> Callable[[C], C]: ...
    def __call__(self, type: str | Callback | None = None, callback: Callback | None = None) -> object:
        """Add a callback, or return a decorator that does.

        :param type: the events' type; None for all but a hub's own (``ssehub.open`` and others).
        :param callback: called with each :class:`~ssehub.Received`, in the thread that follows, in the stream's order;
            first those for the type, then those for all.
        :raises TypeError: if it cannot be called.
        :raises ValueError: if the type is empty, which no event's is.
        """
        if callable(type):
            type, callback = None, type
        check_type(type)
        hook = self._by_type.setdefault(type, Hook("on_event" if type is None else f"on_event({type!r})"))
        return hook if callback is None else hook(callback)

    def remove(self, callback: Callback, type: str | None = None) -> None:
        """Take a callback out again.

        :raises ValueError: if it is not there.
        """
        if type not in self._by_type:
            raise ValueError(f"{callback!r} was not added to on_event({type!r})")
        self._by_type[type].remove(callback)

    def fire(self, type: str, message: Received) -> None:
        """Call whoever wants this message, which is of this type."""
        if type in self._by_type:
            self._by_type[type].fire(message)
        if None in self._by_type and not type.startswith(OWN):
            self._by_type[None].fire(message)


def check_type(type: object) -> None:
    """Refuse what is no event's type.

    :raises TypeError: if it is neither a str nor None.
    :raises ValueError: if it is empty.
    """
    if type is not None and not isinstance(type, str):
        raise TypeError(f"an event's type is a str, or None for all, not {type!r}")
    if type == "":
        raise ValueError("no event's type is empty; that of an event that names none is 'message'")
