"""Within: executes statements in a transaction of the application, on whatever object stands for its connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssehub.exceptions import LogError


def run_within(connection: Any, database: str, statements: Sequence[tuple[str, Sequence[Any]]], place: str) -> Any:
    """Execute statements on a connection of the application. Nothing is committed or rolled back.

    :param connection: a connection or cursor of :mod:`sqlite3` or psycopg, Django's ``connection``, or a session or
        connection of SQLAlchemy.
    :param database: the kind of the database that is needed: ``sqlite`` or ``postgresql``.
    :param statements: the statements, with ``?`` for each parameter.
    :param place: the end of the error text if the statements fail.
    :returns: the result of the last statement: an object with ``fetchone`` and ``rowcount``.
    :raises TypeError: if the object is not a connection to a database of this kind.
    :raises LogError: if the database rejects a statement. On PostgreSQL the transaction can then only be rolled back.
    """
    result: Any = None
    try:
        execute, mark = _execute_of(connection, database)
    except TypeError:
        raise
    except Exception as error:  # the session or connection of the application is closed, for example
        raise LogError(f"the message was not accepted within the transaction: {error}; {place}") from error
    try:
        for statement, parameters in statements:
            result = execute(statement.replace("?", mark), tuple(parameters))
        return result
    except Exception as error:
        raise LogError(f"the message was not accepted within the transaction: {error}; {place}") from error


def _execute_of(connection: Any, database: str) -> tuple[Any, str]:
    """Return a function that executes a statement, and the mark of its parameters."""
    kind = type(connection)
    if any(base.__name__.startswith("Async") for base in kind.__mro__):  # its methods would have to be awaited
        raise TypeError(f"within must not be an async connection, but is {kind.__module__}.{kind.__qualname__}")
    if hasattr(connection, "get_bind") and callable(getattr(connection, "connection", None)):
        connection = connection.connection()  # a session of SQLAlchemy
    if hasattr(connection, "exec_driver_sql"):  # a connection of SQLAlchemy
        _check(connection.dialect.name, database, kind)
        return connection.exec_driver_sql, "?" if connection.dialect.paramstyle == "qmark" else "%s"
    if hasattr(connection, "vendor") and hasattr(connection, "in_atomic_block"):  # a connection of Django
        _check(connection.vendor, database, kind)
        return connection.cursor().execute, "%s"
    driver = kind.__module__.partition(".")[0]
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in ("sqlite3", "psycopg", "psycopg2"):
            driver = base.__module__.partition(".")[0]
    _check({"sqlite3": "sqlite", "psycopg": "postgresql", "psycopg2": "postgresql"}.get(driver), database, kind)
    # A cursor of the application may have results that were not fetched yet.
    cursor = (connection if hasattr(connection, "cursor") else connection.connection).cursor()
    if driver == "sqlite3":
        cursor.row_factory = None
    return cursor.execute, "?" if driver == "sqlite3" else "%s"


#: What a connection can be, by the kind of the database.
_ALLOWED = {
    "sqlite": "a connection or cursor of sqlite3, Django's connection, or a session or connection of SQLAlchemy",
    "postgresql": "a connection or cursor of psycopg, Django's connection, or a session or connection of SQLAlchemy",
}


def _check(found: str | None, database: str, kind: type) -> None:
    if found != database:
        shown = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        raise TypeError(
            f"within must be a connection to the {database} database of the log: {_ALLOWED[database]}; not"
            f" {shown}{f' ({found})' if found else ''}"
        )
