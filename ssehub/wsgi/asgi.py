"""ASGI: detects that a client has disconnected behind a wrapper from ASGI to WSGI, such as a2wsgi.

Such a wrapper keeps iterating a stream after its client has disconnected, so without this module each abandoned stream
would keep a thread. It works only with wrappers that expose the ASGI ``receive`` function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    # Otherwise imported only when a loop exists: asyncio imports ssl, and gevent may not have patched it yet.
    import asyncio
    import concurrent.futures


class Receiver(NamedTuple):
    """The ASGI events of a request. Only this module receives them, because a GET request has no body."""

    loop: asyncio.AbstractEventLoop
    receive: Callable[[], Awaitable[Any]]

    def watch(self, on_leave: Callable[[], object]) -> concurrent.futures.Future[None]:
        """Call a function, in the server's thread, when the client disconnects. Cancel the returned future to stop.

        Specification: https://asgi.readthedocs.io/en/latest/specs/www.html#disconnect-receive-event
        """

        import asyncio

        async def _wait() -> None:
            while (await self.receive())["type"] != "http.disconnect":
                pass
            on_leave()

        return asyncio.run_coroutine_threadsafe(_wait(), self.loop)


def find_receiver(environ: dict[str, Any]) -> Receiver | None:
    """Return the receiver of a request that came through a wrapper, or None if the wrapper does not expose it."""
    body = environ.get("wsgi.input")
    loop, receive = getattr(body, "loop", None), getattr(body, "receive", None)
    if "asgi.scope" not in environ or loop is None or not callable(receive):
        return None
    return Receiver(loop, receive)
