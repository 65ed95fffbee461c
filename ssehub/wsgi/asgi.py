"""ASGI: notices that a client has left where a wrapper from ASGI to WSGI shows how, as a2wsgi does.

A wrapper goes on taking what a stream yields when its client has long gone. Without this each such stream would keep
its thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    # Elsewhere it is imported when there is a loop: it brings ssl, before gevent may have patched that.
    import asyncio
    import concurrent.futures


class Receiver(NamedTuple):
    """What a server tells of a request, one event after the other. Nobody else asks for them: a GET has no body."""

    loop: asyncio.AbstractEventLoop
    receive: Callable[[], Awaitable[Any]]

    def watch(self, on_leave: Callable[[], object]) -> concurrent.futures.Future[None]:
        """Have a function called, in the server's thread, when the client has left; cancel what this returns to stop.

        Specification: https://asgi.readthedocs.io/en/latest/specs/www.html#disconnect-receive-event
        """

        import asyncio

        async def _wait() -> None:
            while (await self.receive())["type"] != "http.disconnect":
                pass
            on_leave()

        return asyncio.run_coroutine_threadsafe(_wait(), self.loop)


def find_receiver(environ: dict[str, Any]) -> Receiver | None:
    """Return how the wrapper that made a request tells its end, or None."""
    body = environ.get("wsgi.input")
    loop, receive = getattr(body, "loop", None), getattr(body, "receive", None)
    if "asgi.scope" not in environ or loop is None or not callable(receive):
        return None
    return Receiver(loop, receive)
