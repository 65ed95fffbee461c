"""Subscription: a client's messages for another thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

from ssehub.events import Received
from ssehub.exceptions import SubscriptionClosed

#: What the names of a hub's own events begin with. They are only given to callbacks that ask for them by name.
OWN = "ssehub."


class Subscription:
    """Take a client's messages in another thread: iterate over it, or call :meth:`get`.

    It holds a bounded number of messages. When it is full the client stops reading, which slows the server down, until
    one is taken; or, with ``drop_oldest``, its oldest message goes and is counted. Made by
    :meth:`ssehub.Client.subscribe`. Several threads may share one; each message goes to one of them.

    The iteration ends when the subscription or the client is closed, after the messages that had arrived; it raises
    the error with which the client failed.
    """

    def __init__(
        self, leave: Callable[[Subscription], None], check: Callable[[], None], size: int, drop_oldest: bool
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self._leave = leave
        self._check = check
        self._size = size
        self._drop_oldest = drop_oldest
        # Its lock may be entered by a signal handler, which stops the client in the thread that is inside already.
        self._changed = threading.Condition(threading.RLock())
        self._messages: deque[Received] = deque()
        self._dropped = 0
        self._ended = False
        self._failure: Exception | None = None

    @property
    def dropped(self) -> int:
        """How many messages went because it was full."""
        return self._dropped

    def get(self, timeout: float | None = None) -> Received:
        """Return the next message, and wait for it.

        :param timeout: seconds to wait at the most; None waits for ever.
        :raises TimeoutError: if none came in time.
        :raises SubscriptionClosed: if none will come any more.
        :raises RuntimeError: if the client is followed in the process that this one was forked from.
        :raises Exception: the error with which the client failed, after the messages before it.
        """
        self._check()
        with self._changed:
            if not self._changed.wait_for(lambda: self._messages or self._ended, timeout):
                raise TimeoutError(f"no message came within {timeout} s")
            if self._messages:
                self._changed.notify_all()
                return self._messages.popleft()
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            raise SubscriptionClosed("the subscription was closed, or its client has ended")

    def close(self) -> None:
        """Take no more messages, and drop those that wait. Whoever waits for one is woken. Idempotent."""
        self._leave(self)
        with self._changed:
            self._messages.clear()
            self._ended = True
            self._failure = None
            self._changed.notify_all()

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> Received:
        try:
            return self.get()
        except SubscriptionClosed:
            raise StopIteration from None

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # What follows is for the client.

    def put(self, message: Received, hurry: Callable[[], bool]) -> None:
        """Add a message; wait while it is full, unless the oldest may go or there is a hurry.

        :param hurry: whether the client is being stopped: then the message is the last, and one too many.
        """
        with self._changed:
            if self._drop_oldest and len(self._messages) >= self._size:
                self._messages.popleft()
                self._dropped += 1
            self._changed.wait_for(lambda: len(self._messages) < self._size or self._ended or hurry())
            if not self._ended:
                self._messages.append(message)
                self._changed.notify_all()

    def wake(self) -> None:
        """Let :meth:`put` see that there is a hurry now."""
        with self._changed:
            self._changed.notify_all()

    def end(self, failure: Exception | None) -> None:
        """Let the messages that wait be the last."""
        with self._changed:
            if not self._ended:
                self._ended = True
                self._failure = failure
            self._changed.notify_all()


class Subscriptions:
    """Hold the subscriptions of one client. Safe to use from any thread, and from signal handlers.

    :param check: raises an error where no message can come: in a process that was forked.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._lock = threading.RLock()
        #: Each with the type it wants.
        self.all: tuple[tuple[str | None, Subscription], ...] = ()

    def add(self, type: str | None, size: int, drop_oldest: bool) -> Subscription:
        """Make a subscription to a type, or with None to all but a hub's own."""
        subscription = Subscription(self._remove, self._check, size, drop_oldest)
        with self._lock:
            self.all = (*self.all, (type, subscription))
        return subscription

    def put(self, type: str, message: Received, hurry: Callable[[], bool]) -> None:
        """Give a message to those that want its type; see :meth:`Subscription.put`."""
        for wanted, subscription in self.all:
            if wanted == type or (wanted is None and not type.startswith(OWN)):
                subscription.put(message, hurry)

    def wake(self) -> None:
        """Wake the thread that waits in :meth:`put`, if there is a hurry now."""
        for _, subscription in self.all:
            subscription.wake()

    def end(self, failure: Exception | None) -> None:
        """End them all; see :meth:`Subscription.end`."""
        for _, subscription in self.all:
            subscription.end(failure)

    def _remove(self, subscription: Subscription) -> None:
        with self._lock:
            self.all = tuple(pair for pair in self.all if pair[1] is not subscription)


def check_type(type: object) -> None:
    """Refuse what is no event's type.

    :raises TypeError: if it is neither a str nor None.
    :raises ValueError: if it is empty.
    """
    if type is not None and not isinstance(type, str):
        raise TypeError(f"an event's type is a str, or None for all, not {type!r}")
    if type == "":
        raise ValueError("no event's type is empty; that of an event that names none is 'message'")
