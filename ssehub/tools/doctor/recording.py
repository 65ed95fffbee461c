"""Recording: one stream, read in a thread of its own, and the data that arrived with its times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import requests

from ssehub.client.cancellation import Cancellation
from ssehub.client.responses import essence, excerpt
from ssehub.client.transport import Timeout, Transport
from ssehub.events import Decoder, Message
from ssehub.log.position import parse_parts

#: Maximum number of pieces that are kept of a stream. It limits the memory, and is more than the doctor needs.
_KEPT = 10_000
#: Seconds to wait for an event after the first bytes: a full hub sends a ``retry`` field, and then ends the stream.
_GRACE = 0.3
#: Seconds to wait for a connection.
_CONNECT = 5.0


class Piece(NamedTuple):
    """The data of one read, and its time (``time.monotonic()``)."""

    at: float
    messages: Sequence[Message]
    #: Number of heartbeats in the data: blocks that are a comment, or a hub's event with a cursor.
    beats: int


class Recording:
    """A stream that is read in a thread, with the time of each piece. Thread-safe. :meth:`close` ends the thread.

    :param url: the URL of the stream.
    :param options: arguments of the request, as in ``requests``.
    :param longest: seconds to wait for the head, and for each piece.
    """

    def __init__(self, url: str, options: dict[str, Any], longest: float) -> None:
        self.began: float = time.monotonic()
        #: The response, when its head has arrived, and the time of that.
        self.response: requests.Response | None = None
        self.answered: float | None = None
        self.pieces: list[Piece] = []
        #: The number of heartbeats, without the first bytes of the stream.
        self.beats: int = 0
        #: The reason in a response that is not a stream.
        self.said: str = ""
        #: The time of the last bytes.
        self.last: float | None = None
        #: The longest time without data since the head, not including the current silence.
        self.longest_silence: float = 0.0
        self.ended: float | None = None
        self.error: Exception | None = None
        self.decoder: Decoder = Decoder(max_event_size=1 << 24, comments=True)
        #: The reconnection times that the stream has sent, in milliseconds.
        self.retries: list[int] = []
        self._url = url
        self._options = options
        self._transport = Transport(None, Timeout(_CONNECT, longest, longest))
        self._cancellation = Cancellation()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ssehub-doctor", daemon=True)
        self._thread.start()

    @property
    def is_stream(self) -> bool:
        """Whether the response is an event stream."""
        response = self.response
        return response is not None and response.status_code == 200 and essence(response) == "text/event-stream"

    @property
    def opened(self) -> dict[str, Any] | None:
        """The data of a hub's first event; None if the stream is not that of a hub, or the event has not arrived."""
        for message in self.messages():
            if message.event == "ssehub.open":
                try:
                    who = message.json()
                except ValueError:
                    return None
                return who if isinstance(who, dict) else None
        return None

    @property
    def epochs(self) -> frozenset[tuple[int, int]] | None:
        """The partitions of the log that a hub's stream reads, each with its epoch; None if they are not known."""
        for message in self.messages():
            if message.event == "ssehub.open" and message.id:
                places = parse_parts(message.id)
                return frozenset((partition, place.epoch) for partition, place in places.items()) if places else None
        return None

    def messages(self) -> list[Message]:
        """Return the messages so far, including comments."""
        return [message for piece in list(self.pieces) for message in piece.messages]

    def arrival(self, data: str) -> float | None:
        """Return the time at which a message with this data arrived, or None."""
        return next(
            (one.at for one in list(self.pieces) if any(message.data == data for message in one.messages)), None
        )

    def wait(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Block until a condition is true or the stream has ended. It is checked whenever data arrives.

        :returns: whether it is true.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.ended is not None or condition(), max(0.0, seconds))
            return bool(condition())

    def settle(self, seconds: float) -> None:
        """Block until the stream has begun or ended. If an event directly follows the first bytes, wait for that."""
        if self.wait(lambda: self.pieces, seconds):
            self.wait(self.messages, _GRACE)

    def close(self) -> None:
        """Disconnect. Idempotent."""
        self._cancellation.cancel()
        self._thread.join(_CONNECT + 1)

    # The following methods run in the thread.

    def _run(self) -> None:
        try:
            with self._transport.open(self._cancellation, "GET", self._url, **self._options) as stream:
                self.response, self.answered = stream.response, time.monotonic()
                if not self.is_stream:
                    self.said = excerpt(stream.response)
                self._tell()
                while self.is_stream and not self._cancellation.cancelled and (chunk := stream.read()):
                    self._take(chunk)
        except Exception as error:
            self.error = error
        finally:
            self.ended = time.monotonic()
            self._transport.close()
            self._tell()

    def _take(self, chunk: bytes) -> None:
        now = time.monotonic()
        messages = self.decoder.feed(chunk)
        assert self.answered is not None
        self.longest_silence = max(self.longest_silence, now - (self.last or self.answered))
        self.last = now
        asked = self.decoder.reconnection_time
        if asked is not None and [asked] != self.retries[-1:]:
            self.retries.append(asked)
        piece = Piece(now, messages, _beats(chunk) + sum(one.event == "ssehub.cursor" for one in messages))
        self.beats += bool(self.pieces and piece.beats)
        if len(self.pieces) < _KEPT:
            self.pieces.append(piece)
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _beats(chunk: bytes) -> int:
    """Count the blocks that begin with a comment. A comment of several lines counts once."""
    return sum(block.startswith(b":") for block in chunk.replace(b"\r\n", b"\n").split(b"\n\n"))
