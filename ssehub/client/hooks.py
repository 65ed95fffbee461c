"""Hooks: to whom a client tells what happens."""

from __future__ import annotations

from collections.abc import Callable

from ssehub.client.canceller import Canceller
from ssehub.client.listeners import OWN, Listeners
from ssehub.client.payload import decoded, gap
from ssehub.client.subscription import Subscriptions
from ssehub.hooks import Hook
from ssehub.wire import Message, Received


class Hooks:
    """Hold the hooks and the subscriptions of a client. Each hook is used as a decorator, or called with a function.

    :ivar on_event: hook by type, called with a :class:`~ssehub.Received`; see
        :class:`~ssehub.client.listeners.Listeners`.
    :ivar on_connection: hook, called without arguments as a stream opens.
    :ivar on_disconnect: hook, called as an open stream ends, with the error, or None if it ended in order.
    :ivar on_error: hook, called after what failed, with the error and the seconds until the next attempt; with None
        instead of seconds if there will be none.
    :ivar on_comment: hook, called with a comment's text; servers send them to keep the connection alive.
    :ivar on_gap: hook, called with a reason and the number of messages that a hub has lost, None if nobody knows it.
    :ivar on_exit: hook, called without arguments, last: when the client has ended, or its loop was left.
    """

    def __init__(self, base64: bool, check: Callable[[], None]) -> None:
        self.on_event = Listeners()
        self.on_connection: Hook[[]] = Hook("on_connection")
        self.on_disconnect: Hook[[Exception | None]] = Hook("on_disconnect")
        self.on_error: Hook[[Exception, float | None]] = Hook("on_error")
        self.on_comment: Hook[[str]] = Hook("on_comment")
        self.on_gap: Hook[[str, int | None]] = Hook("on_gap")
        self.on_exit: Hook[[]] = Hook("on_exit")
        self._subscriptions = Subscriptions(check)
        self._base64 = base64
        self._last_event_id = ""

    def _hand_on(self, message: Message, canceller: Canceller) -> Received | None:
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
            self._subscriptions.put(type, message, hurry=lambda: canceller.cancelled)
        return None if is_own else message
