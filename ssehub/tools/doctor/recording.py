"""Recording: one stream, followed in a thread of its own, and what came of it when."""

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

#: Pieces that are kept of a stream: more than a doctor needs, and no more memory than a stream may take.
_KEPT = 10_000
#: Seconds to wait for an event after first bytes that are none: a hub that is full says when to come, and ends.
_GRACE = 0.3
#: Seconds for a connection to be made.
_CONNECT = 5.0


class Piece(NamedTuple):
    """Hold what one read gave, and when (``time.monotonic()``)."""

    at: float
    messages: Sequence[Message]
    #: How many heartbeats are in it: blocks that are a comment, or a hub's that carry a cursor.
    beats: int


class Recording:
    """Follow a stream and note when what comes. Any thread may look; :meth:`close` ends it and its thread.

    :param url: the stream.
    :param options: how to ask for it, as ``requests`` takes it.
    :param longest: seconds to wait for the head, and for each piece.
    """

    def __init__(self, url: str, options: dict[str, Any], longest: float) -> None:
        self.began: float = time.monotonic()
        #: The head of the answer, once there is one, and when it came.
        self.response: requests.Response | None = None
        self.answered: float | None = None
        self.pieces: list[Piece] = []
        #: How many of them have broken a silence for its own sake; the first bytes break none.
        self.beats: int = 0
        #: What an answer that is no stream says of why.
        self.said: str = ""
        #: When the last bytes came.
        self.last: float | None = None
        #: The longest time without any since the head, except for that which goes on.
        self.longest_silence: float = 0.0
        self.ended: float | None = None
        self.error: Exception | None = None
        self.decoder: Decoder = Decoder(max_event_size=1 << 24, comments=True)
        #: The reconnection times that the stream has asked for, in milliseconds.
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
        """Whether the answer is an event stream."""
        response = self.response
        return response is not None and response.status_code == 200 and essence(response) == "text/event-stream"

    @property
    def opened(self) -> dict[str, Any] | None:
        """What a hub has said first of all; None if it is none, or has not yet."""
        for message in self.messages():
            if message.event == "ssehub.open":
                try:
                    who = message.json()
                except ValueError:
                    return None
                return who if isinstance(who, dict) else None
        return None

    def messages(self) -> list[Message]:
        """Return what has come so far, comments included."""
        return [message for piece in list(self.pieces) for message in piece.messages]

    def arrival(self, data: str) -> float | None:
        """Return when a message with this data came, or None."""
        return next(
            (one.at for one in list(self.pieces) if any(message.data == data for message in one.messages)), None
        )

    def wait(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Block until a condition holds or the stream has ended; it is looked at as something comes.

        :returns: whether it holds.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.ended is not None or condition(), max(0.0, seconds))
            return bool(condition())

    def settle(self, seconds: float) -> None:
        """Block until the stream has begun: with an event, if one follows its first bytes at once, or with its end."""
        if self.wait(lambda: self.pieces, seconds):
            self.wait(self.messages, _GRACE)

    def close(self) -> None:
        """Leave the stream. Idempotent."""
        self._cancellation.cancel()
        self._thread.join(_CONNECT + 1)

    # What follows runs in the thread.

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
    """Count the blocks that begin with a comment; of several lines, it is one all the same."""
    return sum(block.startswith(b":") for block in chunk.replace(b"\r\n", b"\n").split(b"\n\n"))
