"""Connection: a connection to PostgreSQL on which no call hangs for good.

psycopg waits for a server as long as it takes. Here each wait has a limit, so that a server that was stopped, or whose
network is gone, gives an error. After an error of this kind, or an exception within a wait, the connection is closed: a
late answer could otherwise be taken for the answer to the next statement.

The waiting is done here with :mod:`selectors`, looked up when it is needed. So other greenlets run meanwhile, also if
gevent's patches came after the import of psycopg.
"""

from __future__ import annotations

import selectors
import threading
import time
from typing import Any

import psycopg

#: Seconds between two checks whether a wait was interrupted.
_LOOK = 0.1


class Unanswered(psycopg.OperationalError):
    """The server has not answered in time."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection for one thread at a time. :meth:`close` may be called from any thread.

    :ivar patience: the maximum number of seconds to wait for the next bytes of an answer.
    """

    patience = 5.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._interrupted = threading.Event()

    def wait(self, gen: Any, interval: float = _LOOK, timeout: float | None = None) -> Any:
        """Run a generator of psycopg, which yields what it waits for.

        :raises Unanswered: if nothing came for ``patience`` seconds, or :meth:`interrupt` was called.
        """
        try:
            needs = next(gen)
            with selectors.DefaultSelector() as selector:
                selector.register(self.pgconn.socket, needs)  # psycopg's numbers are those of selectors
                while True:
                    ready = self._select(selector)
                    found = gen.send(ready)
                    if found != needs:
                        needs = found
                        selector.modify(self.pgconn.socket, needs)
        except StopIteration as end:
            return end.value
        except BaseException as error:
            # After an error that the server has sent, the connection can be used again.
            if not isinstance(error, psycopg.Error) or isinstance(error, Unanswered):
                self.pgconn.finish()
            raise

    def interrupt(self) -> None:
        """End the waits on this connection, from another thread."""
        self._interrupted.set()

    def _select(self, selector: selectors.BaseSelector) -> int:
        deadline = time.monotonic() + self.patience
        while not self._interrupted.is_set():
            found = selector.select(min(_LOOK, max(0.0, deadline - time.monotonic())))
            if found:
                return found[0][1]
            # libpq closes the socket when the server has gone, and a selector does not tell of a closed socket. This
            # raises an error then.
            _ = self.pgconn.socket
            if time.monotonic() >= deadline:
                raise Unanswered(f"the server has not answered for {self.patience:.1f} s")
        raise Unanswered("the connection is being closed")

    def __del__(self, *_: Any) -> None:
        """Give no warning: a program may end without closing its log. libpq closes the connection."""
