"""Connector: connects to an event stream, and reconnects to it, until it is stopped or an error is final."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ssehub.client.attempt import Attempt
from ssehub.client.callbacks import Hooks
from ssehub.client.report import Report
from ssehub.client.request import Request
from ssehub.client.responses import StreamRefused
from ssehub.client.retry_policy import RetryPolicy, Settings
from ssehub.client.transport import Transport
from ssehub.events import Received


class Connector(Hooks):
    """The attempts to read a stream, one after the other, in the thread that follows. It knows no other threads.

    :param request: the request of each attempt.
    :param settings: the settings of the client.
    :param name: the address of the stream, without secrets.
    :param base64: see :class:`~ssehub.Client`.
    :param check: raises an error in a process that was forked, where no message can arrive.
    """

    def __init__(
        self, request: Request, settings: Settings, name: str, base64: bool, check: Callable[[], None]
    ) -> None:
        super().__init__(base64, check)
        self._request = request
        self._settings = settings
        self._report = Report(name)
        self._attempt: Attempt | None = None
        # Any thread may set these two. It then cancels the attempt.
        self._stopped = False
        self._restart_from: str | None = None

    def _follow(self, transport: Transport) -> Iterator[Received]:
        """Connect repeatedly, until the client is stopped or an error is final."""
        policy, report = RetryPolicy(self._settings), self._report
        while attempt := self._next_attempt():
            report.connecting()
            error: Exception | None = None
            try:
                yield from self._messages(attempt, transport)
            except Exception as caught:
                error = caught
            policy.learn(attempt.decoder.reconnection_time)
            if self._is_last(attempt, error):
                self._stopped = True
            elif not attempt.cancellation.cancelled:
                if error is None and not attempt.good:
                    error = attempt.empty()
                delay = policy.delay(error, good=attempt.good, sent=attempt.sent, lasted=attempt.lasted)
                if error is None and attempt.at_end:
                    delay = 0.0  # a hub answers with a 204 if this was the only zone of the stream
                report.waits(error, policy.failures, delay)
                if error is not None:
                    self.on_error.fire(error, delay)
                attempt.cancellation.wait(delay)

    def _next_attempt(self) -> Attempt | None:
        # The order matters: stop() and restart() first set their flag, and then cancel the attempt that they see here.
        attempt = self._attempt = Attempt(self._settings)
        if self._restart_from is not None:
            self._last_event_id, self._restart_from = self._restart_from, None
        return None if self._stopped else attempt

    def _is_last(self, attempt: Attempt, error: Exception | None) -> bool:
        """Return whether the client ends after this attempt without a failure."""
        if error is None:
            return not self._settings.repeats and not attempt.cancellation.cancelled
        # "Clients can be told to stop reconnecting using the HTTP 204 No Content response code."
        return isinstance(error, StreamRefused) and error.response.status_code == 204

    def _messages(self, attempt: Attempt, transport: Transport) -> Iterator[Received]:
        """Pass the messages of one connection to the hooks and the subscriptions, and yield those for the loop."""
        batches = attempt.messages(transport, self._request, self._last_event_id, self._opened, self.on_disconnect.fire)
        cancellation = attempt.cancellation
        with contextlib.closing(batches):
            for batch in batches:
                for message in batch:
                    if cancellation.cancelled:
                        return
                    if handed_on := self._hand_on(message, cancellation):
                        yield handed_on
                # A block without data changes the last event id as well.
                self._last_event_id = attempt.decoder.last_event_id

    def _opened(self) -> None:
        self._report.opened()
        self.on_connection.fire()
