"""Client: follows an event stream, and reconnects to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from types import TracebackType
from typing import Any

import requests

from ssehub.backoff import Backoff
from ssehub.client.connector import Connector
from ssehub.client.follower import Follower
from ssehub.client.request import Body, Headers, Provided, Request, checked_id
from ssehub.client.responses import RETRY_STATUS, bare, reason
from ssehub.client.retry_policy import Settings
from ssehub.client.subscription import Subscription, check_type
from ssehub.client.transport import Timeout, Transport, check_scheme
from ssehub.events import Received
from ssehub.logger import logger

#: Seconds that leaving a ``with`` block waits for the client's thread. A name lookup may block the thread for longer.
_FAREWELL = 5.0


class Client(Connector):
    """Follows an event stream in a script: iterate over it, :meth:`run` it, or :meth:`start` it in a thread.

    The client connects, and reconnects when the stream ends or breaks off, as
    https://html.spec.whatwg.org/multipage/server-sent-events.html specifies. ``docs/client.rst`` lists the deviations
    and how to switch them off. A client cannot be reused after :meth:`stop`.

    The client connects when you start to follow it, not when you create it. Hooks are called in the thread that
    follows, one after the other, in the order of the stream. If a hook raises an error, it is logged and the stream
    continues. A hook may call any method of the client. The hooks are attributes; see
    :class:`~ssehub.client.callbacks.Hooks`.

    The parameters ``url``, ``headers``, ``params``, ``body``, ``json`` and ``auth`` are values, or functions without
    arguments that are called for each attempt. If such a function raises a ``requests.RequestException``, the attempt
    has failed; any other error ends the client. A ``requests.HTTPError`` from any source is treated like a response
    with its status: the client tries again if the status is in ``retry_status``, and ends otherwise.

    :param url: the address of the stream.
    :param method: the HTTP method.
    :param headers: request headers; they override ``Accept``, ``Cache-Control`` and ``Accept-Encoding``.
    :param params: added to the query of the url, as in ``requests``.
    :param body: the body of the request: bytes, a str, or a mapping for a form.
    :param json: the body of the request, sent as JSON.
    :param auth: as in ``requests``: a pair of name and password, or an object that changes the prepared request.
    :param session: a ``requests.Session`` with proxies, cookies, certificates or adapters. The client does not close
        it, and you may use it at the same time. If it has an adapter other than a plain ``HTTPAdapter``, :meth:`stop`
        takes effect when the response's headers have arrived.
    :param last_event_id: the event after which to continue.
    :param reconnect_delay: seconds before a reconnection, until the stream sends a ``retry`` field. Precedent:
        Chromium's EventSource.
    :param backoff: how long to wait after failures.
    :param timeout: seconds for each phase: :class:`Timeout`, or a tuple of connect, headers and idle.
    :param retry_status: status codes after which the client tries again, and respects ``Retry-After``. Other codes end
        the client.
    :param max_attempts: number of consecutive failures after which the client ends. None: no limit. A stream that
        breaks off within ``backoff.reset_after`` is a failure, even if it delivered messages. A stream that ends
        normally is not.
    :param max_elapsed: seconds of consecutive failures after which the client ends. None: no limit.
    :param max_event_size: maximum size of one event's data, in characters. A larger event is skipped, and ``on_gap`` is
        called with the reason ``too_large``.
    :param base64: whether data is Base64-encoded text (RFC 4648 4) that has to be decoded. If an event's data is not,
        ``on_error`` is called with a delay of 0, and the stream continues.
    :param response_callback: called with each ``requests.Response`` when its head has arrived, before it is checked. If
        it returns True, the response is accepted as a stream whatever its status and type. An error that it raises
        ends the client.
    :raises TypeError: if a parameter has the wrong type.
    :raises ValueError: if a parameter has a value that can never work.
    """

    def __init__(
        self,
        url: Provided[str],
        *,
        method: str = "GET",
        headers: Provided[Headers | None] = None,
        params: Provided[Any] = None,
        body: Provided[Body | None] = None,
        json: Provided[Any] = None,
        auth: Any = None,
        session: requests.Session | None = None,
        last_event_id: str = "",
        reconnect_delay: float = 3.0,
        backoff: Backoff = Backoff(),  # noqa: B008 - an immutable value
        timeout: tuple[float | None, float | None, float | None] = Timeout(),
        retry_status: Collection[int] = RETRY_STATUS,
        max_attempts: int | None = None,
        max_elapsed: float | None = None,
        max_event_size: int = 1 << 24,
        base64: bool = False,
        response_callback: Callable[[requests.Response], object] | None = None,
        reconnect: bool | None = None,
        allow_redirects: bool = True,
    ) -> None:
        request = Request(url, method, headers, params, body, json, auth, allow_redirects)
        if isinstance(url, str):
            check_scheme(session or requests.Session(), url)
        repeats = request.is_idempotent if reconnect is None else bool(reconnect)
        settings = Settings(
            reconnect_delay,
            backoff,
            timeout,
            retry_status,
            max_attempts,
            max_elapsed,
            max_event_size,
            response_callback,
            repeats,
        )
        self._name = "an address that a function returns" if callable(url) else bare(url)
        self._follower = Follower()
        super().__init__(request, settings, self._name, base64, self._follower.check_process)
        self._session = session
        self.last_event_id = last_event_id
        self._is_over = False
        self._error: Exception | None = None

    @property
    def last_event_id(self) -> str:
        """The id of the last event that was delivered. The next connection sends it as ``Last-Event-ID``.

        It is set before the event's hooks are called. You can set it while no stream is open; the stream's next id
        replaces it. While a stream is open, use :meth:`restart` with an id.
        """
        return self._last_event_id

    @last_event_id.setter
    def last_event_id(self, value: str) -> None:
        """Set the id."""
        self._last_event_id = checked_id(value)

    @property
    def error(self) -> Exception | None:
        """The error that ended the client, or None."""
        return self._error

    def __iter__(self) -> Iterator[Received]:
        """Follow the stream in this thread: connect, reconnect, call the hooks, and yield each message.

        The iteration ends after :meth:`stop`, or when the server answers with 204, which means that there are no more
        events. Leaving the loop closes the connection; another loop continues after the last message. A hub's own
        events (``ssehub.open`` and others) are not yielded.

        :raises RuntimeError: if the client is already being followed.
        :raises requests.RequestException: if the client has failed for good. A :class:`~ssehub.StreamRefused` has the
            response.
        :raises Exception: an error that ``response_callback`` or a function for a part of the request has raised.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        self._follower.begin()
        try:
            with contextlib.closing(Transport(self._session, self._settings.timeouts)) as transport:
                yield from self._follow(transport)
        except Exception as final:
            self._stopped = True
            self._error = final
            self.on_error.fire(final, None)
            raise
        finally:
            self._end()

    def __repr__(self) -> str:
        if self._error is not None:
            state = f"over, failed with: {reason(self._error)}"
        else:
            place = self._follower.place or self._report.state
            state = place if self._follower.is_following else "over" if self._stopped else "not followed"
        return f"<Client of {self._name}, {state}>"

    def run(self) -> None:
        """Follow the stream in this thread and only call the hooks. The errors are those of :meth:`__iter__`."""
        try:
            for _ in self:
                pass
        except Exception:
            raise
        except BaseException:  # Ctrl-C: threads that wait for messages have to end as well
            self.stop()
            raise

    def start(self) -> Client:
        """Follow the stream in a daemon thread, and return the client at once.

        A final failure is passed to ``on_error``, to :attr:`error` and to the subscriptions.

        :raises RuntimeError: if it was started before, is already being followed, or no thread can be started.
        """
        self._follower.start(self._run_started)
        return self

    def stop(self, timeout: float | None = None) -> bool:
        """End the client for good. It takes milliseconds, or longer during a name lookup or a TCP connect.

        It may be called repeatedly, from any thread, from a hook and from a signal handler.

        :param timeout: seconds to wait until everything has ended; no hook is called afterwards. None does not wait.
            A call from a hook does not wait either.
        :returns: whether the client has ended. In a process that was forked while the client was followed, the client
            does not run: the method does nothing and returns True.
        """
        if self._follower.is_elsewhere:
            return True
        self._stopped = True
        self._interrupt()
        return self._follower.join(timeout)

    def restart(self, last_event_id: str | None = None) -> None:
        """Reconnect at once, for example with new headers. Thread-safe. It does not count as an error.

        :param last_event_id: the event after which to continue; None for the last event that was delivered.
        """
        self._follower.check_process()
        if last_event_id is not None:
            self._restart_from = checked_id(last_event_id)
        self._interrupt()

    def subscribe(self, type: str | None = None, *, size: int = 1000, drop_oldest: bool = False) -> Subscription:
        """Return a subscription, through which another thread receives the messages from now on.

        :param type: the event type; None for all types except a hub's own.
        :param size: maximum number of queued messages.
        :param drop_oldest: what happens when the queue is full. True drops the oldest message; False stops reading
            until a message is taken.
        :raises ValueError: if the size is not positive, or the type is empty.
        :raises RuntimeError: if the client is being followed in the process that this one was forked from.
        """
        check_type(type)
        self._follower.check_process()
        subscription = self._subscriptions.add(type, size, drop_oldest)
        self._end_subscriptions_if_over()
        return subscription

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop(_FAREWELL)

    def _run_started(self) -> None:
        try:
            self.run()
        except Exception as error:
            logger.error("a client has failed: %s", reason(error))
        except BaseException as error:
            logger.error("a client was ended by %r", error)

    def _interrupt(self) -> None:
        if self._attempt is not None:
            self._attempt.cancellation.cancel()
        self._subscriptions.wake()
        self._end_subscriptions_if_over()

    def _end(self) -> None:
        try:
            if not self._is_over:
                self._is_over = self._stopped
                self.on_exit.fire()
        finally:  # a hook may raise a BaseException, and a thread that waits in stop() must still wake
            self._follower.end(self._end_subscriptions_if_over)

    def _end_subscriptions_if_over(self) -> None:
        if self._stopped and self._follower.is_free:
            self._subscriptions.end(self._error)
