"""Callbacks: the functions that a client calls with events, comments, errors and gaps."""

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
    """The callbacks for events, several for each type. Thread-safe.

    Use it as a decorator, ``@client.on_event("score")`` or ``@client.on_event`` for all types, or call it:
    ``client.on_event("score", callback)``. An event without a type has the type ``"message"``.
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
        """Add a callback, or return a decorator that adds one.

        :param type: the event type; None for all types except a hub's own (``ssehub.open`` and others).
        :param callback: called with each :class:`~ssehub.Received`, in the order of the stream, in the thread that
            reads it. Callbacks for a type are called before callbacks for all types.
        :raises TypeError: if the callback is not callable.
        :raises ValueError: if the type is empty.
        """
        if callable(type):
            type, callback = None, type
        check_type(type)
        hook = self._by_type.setdefault(type, Hook("on_event" if type is None else f"on_event({type!r})"))
        return hook if callback is None else hook(callback)

    def remove(self, callback: Callback, type: str | None = None) -> None:
        """Remove a callback.

        :raises ValueError: if it was not added.
        """
        if type not in self._by_type:
            raise ValueError(f"{callback!r} was not added to on_event({type!r})")
        self._by_type[type].remove(callback)

    def fire(self, type: str, message: Received) -> None:
        """Call the callbacks for a message of this type."""
        if type in self._by_type:
            self._by_type[type].fire(message)
        if None in self._by_type and not type.startswith(OWN):
            self._by_type[None].fire(message)


def decoded(message: Received) -> Received:
    """Return the message with its data decoded from Base64 (RFC 4648 section 4). Line breaks in the data are ignored.

    :raises ValueError: if the data is not valid Base64, or does not contain UTF-8 text.
    """
    text = "".join(message.data.split("\n"))
    try:
        return Received(base64.b64decode(text, validate=True).decode(), message.event, message.id)
    except ValueError as error:
        raise ValueError(f"the data of an event of type {message.event!r} is not Base64 text: {error}") from error


def gap(message: Received) -> tuple[str, int | None]:
    """Return the reason and the number of messages in an event ``ssehub.gap``, with defaults for missing values."""
    try:
        told = message.json()
    except ValueError:
        told = {}
    if not isinstance(told, dict):
        told = {}
    reason, missed = told.get("reason"), told.get("missed")
    return str(reason or "unknown"), missed if isinstance(missed, int) else None


class Hooks:
    """The hooks and subscriptions of a client. Use each hook as a decorator, or call it with a function.

    :ivar on_event: hook by type, called with a :class:`~ssehub.Received`; see
        :class:`~ssehub.client.callbacks.Listeners`.
    :ivar on_connection: hook, called without arguments when a stream opens.
    :ivar on_disconnect: hook, called when an open stream ends, with the error, or None if it ended normally.
    :ivar on_error: hook, called after a failure, with the error and the seconds until the next attempt, or None if
        there is no further attempt.
    :ivar on_comment: hook, called with the text of a comment. Servers send comments to keep the connection alive.
    :ivar on_gap: hook, called with the reason and the number of messages that were lost, or None if it is unknown.
    :ivar on_exit: hook, called last, without arguments: after the client has ended or its loop was left.
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
        """Pass a message to the callbacks and subscriptions that want it, and return it if it is for a loop."""
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
