"""Migration: the SQL that creates the tables of a log in PostgreSQL, and gives a user its rights."""

from __future__ import annotations

import re

from ssehub.log.postgres.tables import CREATING, FUNCTIONS, REST, TABLES, prefix_of

#: The tables that every process changes.
_CHANGED = ("entries", "outbox", "processes", "clients", "sessions", "zones")


def migration(name: str, schema: str | None = None, role: str | None = None) -> str:
    """Return the SQL that creates the tables of a log, if they do not exist. It is one transaction.

    :param name: the name of the log.
    :param schema: the schema, which is created if it does not exist; None for the first one of the search path.
    :param role: a user who gets the rights that the application needs.
    """
    return f"BEGIN;\n{lock(name)};\n{creation(name, schema, role)}COMMIT;\n"


def lock(name: str) -> str:
    """Return the statement that keeps other processes from creating the tables until the end of the transaction."""
    return f"SELECT pg_advisory_xact_lock({CREATING}, hashtext('{name.lower()}'))"


def creation(name: str, schema: str | None, role: str | None = None) -> str:
    """Return the statements of :func:`migration`, without the transaction and its lock."""
    script = ""
    if schema is not None:
        # CREATE SCHEMA IF NOT EXISTS would need a right also if the schema exists.
        missing = f"to_regnamespace('\"{schema}\"') IS NULL"
        script += f'DO $$ BEGIN IF {missing} THEN CREATE SCHEMA "{schema}"; END IF; END $$;\n'
    script += TABLES + FUNCTIONS + REST
    if role is not None:
        script += _grants(schema)
    words = {"@": prefix_of(name, schema), "~": name.lower(), "^": '"' + (role or "").replace('"', '""') + '"'}
    return re.sub("[@~^]", lambda found: words[found[0]], script)


def _grants(schema: str | None) -> str:
    """Return the statements that give the role ``^`` its rights."""
    tables = ", ".join(f"@_{name}" for name in _CHANGED)
    grants = "" if schema is None else f'GRANT USAGE ON SCHEMA "{schema}" TO ^;\n'
    return f"{grants}GRANT SELECT ON @_head TO ^;\nGRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO ^;\n"
