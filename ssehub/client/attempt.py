"""Attempt: one connection to a stream, from its request to its end, and the wait after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator

from ssehub.client.canceller import Canceller
from ssehub.client.listeners import OWN
from ssehub.client.refusal import check_stream
from ssehub.client.request import Request
from ssehub.client.settings import Settings
from ssehub.client.transport import Stream, Transport
from ssehub.wire import Decoder, Message


class Attempt:
    """Connect once and read what comes. It belongs to the thread that reads; any thread may cancel it.

    :param settings: the client's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._decoder = Decoder()
        self._canceller = Canceller()
        #: Ends the attempt, in whatever phase; see :meth:`Canceller.cancel`.
        self.cancel = self._canceller.cancel
        #: Blocks for so many seconds after the end, or until cancelled.
        self.wait = self._canceller.wait
        #: Whether the connection was worth having: it brought a message, or lasted.
        self.good = False

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._canceller.cancelled

    @property
    def last_event_id(self) -> str:
        """The last event id of everything read."""
        return self._decoder.last_event_id

    @property
    def reconnection_time(self) -> float | None:
        """The seconds that the stream wants a client to wait, or None if it has not said."""
        milliseconds = self._decoder.reconnection_time
        return None if milliseconds is None else milliseconds / 1000

    def messages(
        self,
        transport: Transport,
        request: Request,
        last_event_id: str,
        opened: Callable[[], None],
        closed: Callable[[Exception | None], None],
    ) -> Generator[list[Message], None, None]:
        """Yield what each read completes, comments and a hub's own events too, until the stream ends.

        :param last_event_id: the event after which to go on.
        :param opened: called once the response has proved to be a stream.
        :param closed: called as it ends, if it was opened, with the error or None.
        :raises requests.RequestException: if there was no connection, or it was no stream, or it broke off.
        :raises EventTooLarge: if an event was.
        """
        self._decoder = Decoder(last_event_id, max_event_size=self._settings.max_event_size, comments=True)
        options = request.options(last_event_id)
        with transport.open(self._canceller, request.method, request.url_now(), **options) as stream:
            callback = self._settings.response_callback
            if not (callback and callback(stream.response) is True):
                check_stream(stream.response)
            if self.cancelled:
                return
            error: Exception | None = None
            opened()
            began = time.monotonic()
            try:
                yield from self._read(stream)
            except Exception as caught:
                # Cut off by us it looks like an error, or like an end in order: only our own flag tells.
                error = None if self.cancelled else caught
                raise
            finally:
                self.good = self.good or time.monotonic() - began >= self._settings.backoff.reset_after
                closed(error)

    def _read(self, stream: Stream) -> Iterator[list[Message]]:
        # A reader may get a hundred kilobytes more after it was cut off.
        while not self.cancelled and (chunk := stream.read()):
            messages = self._decoder.feed(chunk)
            # A hub's own events prove nothing: each connection begins with one.
            self.good = self.good or any(_is_message(message) for message in messages)
            yield messages
            if self._decoder.error:
                raise self._decoder.error


def _is_message(message: Message) -> bool:
    return message.data is not None and not message.event.startswith(OWN)
