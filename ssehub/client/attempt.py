"""Attempt: one connection to a stream, from the request to the end of the stream, and the wait after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator

import requests

from ssehub.client.cancellation import Cancellation
from ssehub.client.request import Request
from ssehub.client.responses import check_stream
from ssehub.client.retry_policy import Settings
from ssehub.client.subscription import END, OWN
from ssehub.client.transport import Stream, Transport
from ssehub.events import Decoder, Message, Received


class Attempt:
    """One connection to a stream. It belongs to the thread that reads; any thread may cancel it.

    :param settings: the settings of the client.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        #: Aborts the attempt in any phase, and the wait after it.
        self.cancellation: Cancellation = Cancellation()
        #: Decodes the stream, and keeps the last event id and the reconnection time.
        self.decoder: Decoder = Decoder()
        #: Whether the connection was useful: it delivered a message, or lasted for some time.
        self.good: bool = False
        #: Whether the request may have reached the server.
        self.sent: bool = False
        #: Whether the last event was the end of a production, after which the server usually has no more events.
        self.at_end: bool = False
        self._opened_at: float | None = None

    @property
    def lasted(self) -> float:
        """Seconds since the stream opened; 0 if it has not."""
        return 0.0 if self._opened_at is None else time.monotonic() - self._opened_at

    def empty(self) -> requests.ConnectionError:
        """Return the error for a stream that ended normally but whose connection was not good."""
        what = "within an event that is larger than max_event_size" if self.decoder.is_skipping else ""
        return requests.ConnectionError(f"the stream ended {what or 'before its first message'}")

    def messages(
        self,
        transport: Transport,
        request: Request,
        last_event_id: str,
        opened: Callable[[], None],
        closed: Callable[[Exception | None], None],
    ) -> Generator[list[Received], None, None]:
        """Yield the messages that each read completes, with comments and a hub's own events, until the stream ends.

        :param last_event_id: the event after which to continue.
        :param opened: called when the response has been accepted as a stream.
        :param closed: called with the error or None when the stream ends, if ``opened`` was called.
        :raises requests.RequestException: if the connection fails, the response is not a stream, or the stream breaks
            off.
        """
        limit = self._settings.max_event_size
        self.decoder = Decoder(last_event_id, max_event_size=limit, comments=True, skip=True)
        options, url = request.options(last_event_id), request.url_now()
        self.sent = True
        with transport.open(self.cancellation, request.method, url, **options) as stream:
            callback = self._settings.response_callback
            if not (callback and callback(stream.response) is True):
                check_stream(stream.response)
            stream.prepare()
            if self.cancellation.cancelled:
                return
            error: Exception | None = None
            opened()
            self._opened_at = time.monotonic()
            try:
                yield from self._read(stream)
            except Exception as caught:
                # After our own cancel() a read may raise an error or return an end, so only the flag is reliable.
                error = None if self.cancellation.cancelled else caught
                raise
            finally:
                self.good = self.good or self.lasted >= self._settings.backoff.reset_after
                closed(error)

    def _read(self, stream: Stream) -> Iterator[list[Received]]:
        decoder, cancellation = self.decoder, self.cancellation
        # After a cancel() the reader may still return a hundred kilobytes.
        while not cancellation.cancelled and (chunk := stream.read()):
            messages = decoder.feed(chunk)
            if not self.good:
                # A hub's own events do not count, because every connection begins with one.
                self.good = decoder.skipped > 0 or any(_is_message(message) for message in messages)
            self.at_end = next((one.event == END for one in reversed(messages) if one.data is not None), self.at_end)
            yield messages


def _is_message(message: Message) -> bool:
    return message.data is not None and (message.event == END or not message.event.startswith(OWN))
