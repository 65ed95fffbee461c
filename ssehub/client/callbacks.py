"""Callbacks: what a client calls with events, comments, errors and gaps; and what it reads from events of a hub."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TypeVar, overload

from ssehub.client.cancellation import Cancellation
from ssehub.client.subscription import OWN, Subscriptions, check_type
from ssehub.events import Message, Received
from ssehub.hooks import Hook

Callback = Callable[[Received], object]
C = TypeVar("C", bound=Callback)


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


def decoded(message: Received) -> Received:
    """Return the message with its data decoded from Base64, RFC 4648 section 4; line breaks in it do not count.

    :raises ValueError: if it is no Base64, or not of UTF-8 text.
    """
    text = "".join(message.data.split("\n"))
    try:
        return Received(base64.b64decode(text, validate=True).decode(), message.event, message.id)
    except ValueError as error:
        raise ValueError(f"the data of an event of type {message.event!r} is no text in Base64: {error}") from error


def gap(message: Received) -> tuple[str, int | None]:
    """Return the reason and the number that an event ``ssehub.gap`` tells, as far as it does."""
    try:
        told = message.json()
    except ValueError:
        told = {}
    if not isinstance(told, dict):
        told = {}
    reason, missed = told.get("reason"), told.get("missed")
    return str(reason or "unknown"), missed if isinstance(missed, int) else None


class Hooks:
    """Hold the hooks and the subscriptions of a client. Each hook is used as a decorator, or called with a function.

    :ivar on_event: hook by type, called with a :class:`~ssehub.Received`; see
        :class:`~ssehub.client.callbacks.Listeners`.
    :ivar on_connection: hook, called without arguments as a stream opens.
    :ivar on_disconnect: hook, called as an open stream ends, with the error, or None if it ended in order.
    :ivar on_error: hook, called after what failed, with the error and the seconds until the next attempt; with None
        instead of seconds if there will be none.
    :ivar on_comment: hook, called with a comment's text; servers send them to keep the connection alive.
    :ivar on_gap: hook, called with a reason and the number of messages that a hub has lost, None if nobody knows it.
    :ivar on_exit: hook, called without arguments, last: when the client has ended, or its loop was left.
    """

    def __init__(self, base64: bool, check: Callable[[], None]) -> None:
        self.on_event: Listeners = Listeners()
        self.on_connection: Hook[[]] = Hook("on_connection")
        self.on_disconnect: Hook[[Exception | None]] = Hook("on_disconnect")
        self.on_error: Hook[[Exception, float | None]] = Hook("on_error")
        self.on_comment: Hook[[str]] = Hook("on_comment")
        self.on_gap: Hook[[str, int | None]] = Hook("on_gap")
        self.on_exit: Hook[[]] = Hook("on_exit")
        self._subscriptions = Subscriptions(check)
        self._base64 = base64
        self._last_event_id = ""

    def _hand_on(self, message: Message, cancellation: Cancellation) -> Received | None:
        """Give a message to whoever asked for it, and return it if a loop gets it."""
        if not isinstance(message, Received):  # a comment
            self.on_comment.fire(message.comment or "")
            return None
        self._last_event_id = message.id
        type = message.event
        is_own = type.startswith(OWN)
        if type == "ssehub.gap":
            self.on_gap.fire(*gap(message))
        elif self._base64 and not is_own:
            try:
                message = decoded(message)
            except ValueError as error:
                self.on_error.fire(error, 0.0)
                return None
        self.on_event.fire(type, message)
        if self._subscriptions.all:
            self._subscriptions.put(type, message, hurry=lambda: cancellation.cancelled)
        return None if is_own else message
