"""Production: the output of one generator, which this process sends to a zone of the log.

Two threads share the work. ``ssehub-iterator`` runs the generator, and queues its items. ``ssehub-producer`` joins
texts that come quickly after one another, and appends to the log. So a generator that is silent does not hold back the
text before, and a log that is away does not lose an item: the queue gets full, and the generator waits. Each entry has
a key, so an append that is repeated after an error is not written twice.

Whoever first sets the reason of the end determines it. After that nothing more is queued; what is queued is sent, and
then the end.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ssehub.background import Background
from ssehub.events import Message
from ssehub.exceptions import LogError, ProductionError
from ssehub.log import Packet, Receipt
from ssehub.log.packet import check_fields, check_type, warn_of_type
from ssehub.log.production import Beginning, Ending, EndReason
from ssehub.logger import logger
from ssehub.server.connection import as_message

#: The maximum number of items in the queue. A generator that is faster than the log waits then.
_ROOM = 256
#: The maximum size of the data of an item, in characters. Precedent: NATS, 1 MiB.
MAX_ITEM = 1 << 20
#: The maximum size of joined texts, in characters.
_JOINED = 1 << 16


class Production:
    """A production of this process. Any thread may call its methods.

    :param beginning: its run, its zone and its key.
    :param iterator: brings the items.
    :param coalesce: seconds during which texts are joined.
    :param ttl: seconds that it may take.
    :param append: appends a packet to the log.
    :param on_end: called in one of its threads when it is over.
    :param owner: an object that must not be garbage collected before the end.
    """

    def __init__(
        self,
        beginning: Beginning,
        iterator: Iterator[Any],
        coalesce: float,
        ttl: float,
        append: Callable[[Packet], Receipt],
        on_end: Callable[[Production], None],
        owner: object,
    ) -> None:
        self.beginning = beginning
        self.owner = owner
        self._iterator = iterator
        self._coalesce = coalesce
        self._ttl = ttl
        self._append = append
        self._on_end = on_end
        self._changed = threading.Condition()
        self._items: collections.deque[Message | str] = collections.deque()
        #: The number of items in the queue that are not texts.
        self._others = 0
        self._end: tuple[EndReason, str | None] | None = None
        #: The packet that is being sent, and the number of packets so far.
        self._sending: Packet | None = None
        self._sent = 0
        self._sent_at = 0.0
        self._late_at = 0.0
        #: Whether the beginning has to be looked up in the log, before anything is sent.
        self._is_doubtful = False
        self._over = threading.Event()
        self._has_left = False
        zone = beginning.zone
        self._sender = Background(
            "ssehub-producer",
            self._send_next,
            (f"the production {zone!r} cannot be sent", f"the production {zone!r} is sent again"),
            expected=(LogError,),
            is_done=lambda: self._has_left,
        )

    def start(self) -> None:
        """Start the threads.

        :raises RuntimeError: if no threads can be started. Then the production ends with an error.
        """
        self._late_at = time.monotonic() + self._ttl
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._iterate,), name="ssehub-iterator", daemon=True)
        try:
            self._sender.start()
            thread.start()
        except RuntimeError:
            self.finish("error")
            raise

    def give_up(self) -> None:
        """End with an error. It is not known whether the log has accepted the beginning, so find this out first."""
        self._is_doubtful = True
        self.finish("error")
        self._late_at = time.monotonic() + self._ttl
        with contextlib.suppress(RuntimeError):  # other threads of ssehub start it later
            self._sender.start()

    def finish(self, reason: EndReason, text: str | None = None) -> None:
        """End the production, unless it is ending already. Does not block.

        The generator is closed when it brings its next item.
        """
        with self._changed:
            if self._end is None:
                self._end = reason, text
            self._changed.notify_all()

    def abandon(self) -> None:
        """End without an end in the log, because another process has written it. Does not block."""
        with self._changed:
            if isinstance(self._sending, Ending):
                return
            self._end = self._end or ("lost", None)
            self._over.set()
            self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until the end is in the log. Return whether it is.

        :param timeout: the maximum number of seconds to wait.
        """
        return self._over.wait(timeout)

    # The generator's thread

    def _iterate(self) -> None:
        reason: EndReason = "error"
        text: str | None = None
        try:
            for item in self._iterator:
                if not self._put(_checked(item)):
                    break
            else:
                reason = "done"
        except ProductionError as error:
            text = str(error)
        except BaseException:
            logger.exception("the production %r has failed", self.beginning.zone)
        finally:
            self.finish(reason, text)
            _close(self._iterator)

    def _put(self, item: Message | str) -> bool:
        """Queue an item. Return False if the production is ending."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < _ROOM or self._end)
            if self._end:
                return False
            self._items.append(item)
            if not isinstance(item, str):
                self._others += 1
            if self._others or len(self._items) in (1, _ROOM):
                self._changed.notify_all()
            return True

    # The sender's thread

    def _send_next(self) -> None:
        """Send the next packet. If this fails, it is called again after a while, and sends the same packet."""
        if self._over.is_set():
            self._has_left = True
            return self._on_end(self)
        if self._is_doubtful:
            receipt = self._append(self.beginning.command())
            if self.beginning.first(receipt.repeats).run != self.beginning.run:
                self._over.set()
            self._is_doubtful = False
        with self._changed:
            if self._sending is None and not self._over.is_set():
                self._sending = self._take()
            packet = None if self._over.is_set() else self._sending
        return None if packet is None else self._send(packet)

    def _send(self, packet: Packet) -> None:
        try:
            self._append(packet)
        except LogError:
            with self._changed:
                if self._is_late() and not isinstance(packet, Ending):
                    self._items.clear()
                    self._sending, self._others = None, 0
            raise
        with self._changed:
            self._sending, self._sent, self._sent_at = None, self._sent + 1, time.monotonic()
            if isinstance(packet, Ending):
                self._over.set()

    # The methods below run under the lock, which is reentrant.

    def _take(self) -> Packet | None:
        """Wait for the next packet. Return None if the production is over."""
        self._changed.wait_for(self._has_news, max(0.0, self._late_at - time.monotonic()))
        self._is_late()
        self._changed.wait_for(self._is_due, max(0.0, self._sent_at + self._coalesce - time.monotonic()))
        if self._over.is_set():
            return None
        run, zone, _ = self.beginning
        if self._items:
            message = self._join()
            self._changed.notify_all()
            return Packet(message, zone, broadcast=True, key=f"{run} {self._sent}")
        assert self._end is not None
        return Ending.of(run, zone, *self._end)

    def _is_late(self) -> bool:
        """Return whether the production takes too long. Then it ends."""
        if time.monotonic() < self._late_at:
            return False
        self.finish("error", f"it took longer than {self._ttl:g} seconds")
        return True

    def _has_news(self) -> bool:
        return bool(self._items or self._end or self._over.is_set())

    def _is_due(self) -> bool:
        """Return whether there is no reason to wait for more texts."""
        return bool(self._end or self._others or len(self._items) >= _ROOM or self._over.is_set())

    def _join(self) -> Message:
        """Take the next message from the queue, or the next texts as one message."""
        first = self._items.popleft()
        if isinstance(first, Message):
            self._others -= 1
            return first
        texts, size = [first], len(first)
        while (
            self._coalesce and self._items and isinstance(text := self._items[0], str) and size + len(text) <= _JOINED
        ):
            texts.append(text)
            size += len(text)
            self._items.popleft()
        return Message("".join(texts))


def _checked(item: Any) -> Message | str:
    """Return an item as it is queued.

    :raises Exception: if it cannot be sent.
    """
    message = as_message(item)
    check_type(message)
    check_fields(message)
    warn_of_type(message)
    if message.data is not None and len(message.data) > MAX_ITEM:
        raise ValueError(f"an item of a production has at most {MAX_ITEM} characters, not {len(message.data)}")
    return item if isinstance(item, str) else message


def _close(iterator: Iterator[Any]) -> None:
    close = getattr(iterator, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception:
        logger.exception("a generator could not be closed")
