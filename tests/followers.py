"""Followers for tests: threads that iterate streams of a hub without HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from ssehub import Connection, Decoder, Hub, Message
from tests.streams import until


class Follower:
    """Iterate one stream of a hub in a thread of its own, as a server would, and keep what comes."""

    def __init__(self, hub: Hub, **options: Any) -> None:
        #: While it is clear, the reader does not read: a client whose window is closed.
        self.reading = threading.Event()
        self.reading.set()
        self.chunks: list[bytes] = []
        self.events: list[Message] = []
        self.decoder = Decoder(options.get("last_event_id", ""))
        self._stream: Iterator[bytes] = hub.stream(**options)
        self.leaving = False
        self._asked_after = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        until(lambda: self.events or not self._thread.is_alive(), "the first event")
        opened = self.events[0].json() if self.events else {}
        self.session_id: str = opened.get("session_id", "")

    def _run(self) -> None:
        for chunk in self._stream:
            self.chunks.append(chunk)
            self.events += self.decoder.feed(chunk)
            self.reading.wait()
            self._asked_after = len(self.chunks)
            if self.leaving:
                break
        self._stream.close()  # type: ignore[attr-defined]

    def stop_reading(self) -> None:
        """Take one more chunk, and read no more after that."""
        until(lambda: self._asked_after == len(self.chunks), "the reader to ask for more")
        self.reading.clear()

    @property
    def texts(self) -> list[str | None]:
        """The data of all messages so far; a gap shows as its reason and number."""
        return [
            f"gap {event.json()['reason']} {event.json()['missed']}" if event.event == "ssehub.gap" else event.data
            for event in self.events
            if event.event == "ssehub.gap" or not event.event.startswith("ssehub.")
        ]

    def wait_for(self, *texts: str) -> None:
        """Wait until exactly these messages have come."""
        until(lambda: self.texts == list(texts), f"{texts} but got {self.texts[-20:]}")

    def wait_for_last(self, text: str) -> None:
        """Wait until this message has come."""
        until(lambda: self.texts and self.texts[-1] == text, f"{text} but got {self.texts[-3:]}")

    def leave(self, hub: Hub) -> None:
        """Leave as soon as the next chunk comes, and make one come."""
        self.leaving = True
        self.reading.set()
        for connection in hub.connections():
            if connection.id == self.session_id:
                connection.send("go")
        self.join()

    def join(self) -> None:
        """Wait for the end of the stream."""
        self.reading.set()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the stream does not end"


def only(hub: Hub) -> Connection:
    """Return the one connection there is."""
    (connection,) = hub.connections()
    return connection
