"""Subscription: delivers a client's messages to another thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

from ssehub.events import Received
from ssehub.exceptions import SubscriptionClosed

#: Prefix of the types of a hub's own events. Only callbacks that ask for such a type get them.
OWN = "ssehub."
#: The event of a hub that ends a production.
END = "ssehub.end"


class Subscription:
    """A queue of a client's messages for another thread: iterate over it, or call :meth:`get`.

    The queue is bounded. When it is full, the client stops reading, which slows the server down, until a message is
    taken. With ``drop_oldest`` the oldest message is dropped and counted instead. :meth:`ssehub.Client.subscribe`
    creates a subscription. Several threads may share one; each message goes to one of them.

    After the subscription or the client was closed, the iteration ends when the queue is empty. If the client failed,
    the iteration raises its error.
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
        # Reentrant, because a signal handler may stop the client in the thread that holds the lock.
        self._changed = threading.Condition(threading.RLock())
        self._messages: deque[Received] = deque()
        self._dropped = 0
        self._ended = False
        self._failure: Exception | None = None

    @property
    def dropped(self) -> int:
        """The number of messages that were dropped because the queue was full."""
        return self._dropped

    def get(self, timeout: float | None = None) -> Received:
        """Return the next message, and wait for it.

        :param timeout: maximum number of seconds to wait; None waits without a limit.
        :raises TimeoutError: if no message arrived in time.
        :raises SubscriptionClosed: if no more messages will arrive.
        :raises RuntimeError: if the client is being followed in the process that this one was forked from.
        :raises Exception: the error with which the client failed, after the messages before it.
        """
        self._check()
        with self._changed:
            if not self._changed.wait_for(lambda: self._messages or self._ended, timeout):
                raise TimeoutError(f"no message arrived within {timeout} s")
            if self._messages:
                self._changed.notify_all()
                return self._messages.popleft()
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            raise SubscriptionClosed("the subscription was closed, or its client has ended")

    def close(self) -> None:
        """Drop the queued messages and accept no more. Threads that wait for a message are woken. Idempotent."""
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

    # The remaining methods are for the client.

    def put(self, message: Received, hurry: Callable[[], bool]) -> None:
        """Add a message. If the queue is full, wait, unless the oldest message may be dropped or ``hurry`` is true.

        :param hurry: whether the client is being stopped. Then the message is the last one, and may exceed the size.
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
        """Make :meth:`put` check ``hurry`` again."""
        with self._changed:
            self._changed.notify_all()

    def end(self, failure: Exception | None) -> None:
        """Accept no more messages. The queued ones can still be taken."""
        with self._changed:
            if not self._ended:
                self._ended = True
                self._failure = failure
            self._changed.notify_all()


class Subscriptions:
    """The subscriptions of one client. Thread-safe, also in signal handlers.

    :param check: raises an error in a process that was forked, where no message can arrive.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._lock = threading.RLock()
        #: Each subscription with its event type.
        self.all: tuple[tuple[str | None, Subscription], ...] = ()

    def add(self, type: str | None, size: int, drop_oldest: bool) -> Subscription:
        """Create a subscription to a type, or with None to all types except a hub's own."""
        subscription = Subscription(self._remove, self._check, size, drop_oldest)
        with self._lock:
            self.all = (*self.all, (type, subscription))
        return subscription

    def put(self, type: str, message: Received, hurry: Callable[[], bool]) -> None:
        """Add a message to the subscriptions to its type; see :meth:`Subscription.put`."""
        for wanted, subscription in self.all:
            if wanted == type or (wanted is None and not type.startswith(OWN)):
                subscription.put(message, hurry)

    def wake(self) -> None:
        """Make a thread that waits in :meth:`put` check ``hurry`` again."""
        for _, subscription in self.all:
            subscription.wake()

    def end(self, failure: Exception | None) -> None:
        """End all subscriptions; see :meth:`Subscription.end`."""
        for _, subscription in self.all:
            subscription.end(failure)

    def _remove(self, subscription: Subscription) -> None:
        with self._lock:
            self.all = tuple(pair for pair in self.all if pair[1] is not subscription)


def check_type(type: object) -> None:
    """Check an event type.

    :raises TypeError: if it is neither a str nor None.
    :raises ValueError: if it is empty.
    """
    if type is not None and not isinstance(type, str):
        raise TypeError(f"the event type must be a str, or None for all, not {type!r}")
    if type == "":
        raise ValueError("the event type must not be empty; the default type is 'message'")
