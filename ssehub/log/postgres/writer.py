"""Writer: appends entries, each exactly once.

If the connection is lost before the answer comes, it is not known whether the entry was appended, and the server may
still be at it. So each entry has a token. Every attempt, also the first one, looks for the token under the lock of the
appends, and appends the entry only if it is not there. If the entry may have been dropped meanwhile, so that the token
cannot be found, the server says so.
"""

from __future__ import annotations

import re
import time
import uuid

import psycopg

from ssehub.backoff import Backoff
from ssehub.exceptions import LogError
from ssehub.log.position import Position
from ssehub.log.postgres.connection import Connection
from ssehub.log.postgres.link import ERRORS, reason_of
from ssehub.log.postgres.shared_connection import SharedConnection
from ssehub.log.postgres.tables import Statements
from ssehub.log.sql.row import Letter

_BACKOFF = Backoff(initial=0.01, maximum=0.5)
#: Errors that may pass: a lost connection, a server that starts or stops, a standby, a conflict with another
#: transaction, a lack of connections, memory or disk space, a cancelled statement, tables that were dropped (a new
#: connection creates them).
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
_PASSING = ("08", "53", "57P", "57014", "25006", "40", "55P03", "23505", "3F000", "42P01", "42883")
#: Texts of servers and of libpq that tell of a wrong address, for which there is no code.
_WRONG = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|(role|database) \".*\" does not exist|"
    r"root certificate|server does not support SSL"
)


class Writer:
    """Appends entries to the table. Safe to use from any thread.

    :param connection: the connection.
    :param statements: the statements of the log.
    """

    def __init__(self, connection: SharedConnection, statements: Statements) -> None:
        self._shared = connection
        self._statements = statements
        #: A place that is, or was, the end of the log; None if no place is known.
        self._known: Position | None = None

    def know(self, end: Position) -> None:
        """Note the end of the log. The newer this place, the less often an append has to ask for it."""
        self._known = end

    def append(self, letter: Letter, deadline: float) -> tuple[Position, str]:
        """Append an entry; see :meth:`ssehub.log.sql.store.Store.append`."""
        attempt = _Attempt(self._shared, self._statements, letter, self._known)
        failures = 0
        while True:
            try:
                position, previous = attempt.make(deadline)
            except ERRORS as error:
                failures += 1
                wait = _BACKOFF.delay(failures, 0.0)
                if not may_pass(error) or time.monotonic() + wait > deadline:
                    raise attempt.failure(error) from error
                time.sleep(wait)
            else:
                if position.nonce == letter.nonce:
                    self._known = position
                return position, previous


class _Attempt:
    """The attempts to append one entry.

    :param since: a place before the entry; None if it is not known.
    """

    def __init__(self, connection: SharedConnection, statements: Statements, letter: Letter, since: Position | None):
        self._shared = connection
        self._statements = statements
        self._letter = letter
        self._since = since
        self._token = uuid.uuid4()
        #: Whether an attempt had no answer.
        self._may_be_written = False

    def make(self, deadline: float) -> tuple[Position, str]:
        """Make an attempt. It may take half of the time that is left, so that there is time for others.

        :raises LogError: if it can no longer be found out whether an earlier attempt has appended the entry.
        """
        left = deadline - time.monotonic()
        with self._shared.lent(left, left / 2) as connection:
            while True:
                if self._since is None:
                    self._since = Position(*connection.execute(self._statements.end).fetchone())  # type: ignore[misc]
                epoch, number, nonce, previous = self._send(connection, self._since)
                if previous is not None:
                    return Position(epoch, number, nonce), previous
                if self._may_be_written:
                    raise LogError(
                        "it is not known whether the message was accepted, because the log was replaced, or has dropped"
                        " messages, while it was sent"
                    )
                self._since = Position(epoch, number, nonce)

    def failure(self, error: Exception) -> LogError:
        """Return the error for the sender."""
        unknown = "it is not known whether the message was accepted" if self._may_be_written else ""
        return LogError(f"{unknown or 'the message was not accepted'}: {reason_of(error)}")

    def _send(self, connection: Connection, since: Position) -> tuple[int, int, str, str | None]:
        was_unknown, self._may_be_written = self._may_be_written, True
        try:
            cursor = connection.execute(
                self._statements.append, (self._token, since.epoch, since.offset, *self._letter), binary=True
            )
            found: tuple[int, int, str, str | None] = cursor.fetchone()  # type: ignore[assignment]
        except psycopg.Error as error:
            if _is_refusal(error):
                self._may_be_written = was_unknown
            raise
        if found[3] is None:
            self._may_be_written = was_unknown
        return found


def may_pass(error: Exception) -> bool:
    """Return whether a statement may succeed later."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state is None:
        return isinstance(error, psycopg.OperationalError | OSError) and not _WRONG.search(str(error))
    return state.startswith(_PASSING)


def _is_refusal(error: psycopg.Error) -> bool:
    """Return whether the server has not carried out a statement. If it was about to end, that is not known."""
    return error.sqlstate is not None and error.diag.severity_nonlocalized == "ERROR"
