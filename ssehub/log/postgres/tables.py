"""The tables and functions of a log in a PostgreSQL database. No connections.

The table ``head`` has one row, which never changes: the version of the tables, and the epoch. The end of the log is the
newest row of ``entries``. An UPDATE of a row for each message would leave a dead row each time. While a long
transaction is open, such as a backup, PostgreSQL cannot remove dead rows, and every append would have to skip them all.

An append takes an advisory lock until it has committed. So offsets have no holes, and are in the order of the commits.
A message in a transaction of the application must not take this lock: all other senders would wait as long as the
transaction lasts. It is a row of ``outbox``. At the commit, a trigger gives the row the next number of a sequence. Then
a follower, or the next append, moves the committed rows to ``entries``, in the order of these numbers. So if a commit
begins after another one has returned, its messages come later.

Any program can send with ``SELECT ssehub_send(zone, client_id, event, data)``. A NULL means all zones, all clients, or
an event of type ``message``.
"""

from __future__ import annotations

import re

from ssehub.log.position import GENESIS
from ssehub.log.sql.row import COLUMNS, LETTER, Letter

#: The version of the tables.
VERSION = 1
#: The first keys of the advisory locks: "sseh" in ASCII, and the numbers after it. The second key is the id of the
#: table ``head``, or the hash of its name while it does not exist.
_APPENDING = 0x73736568
_MOVING = _APPENDING + 1
CREATING = _APPENDING + 2
_SCHEMA = re.compile(r"[\w .-]{1,63}")
#: The maximum number of rows of the outbox that are moved at a time.
_BATCH = 1000
#: Vacuum a table after so many changes, however large it is.
_VACUUMED = (
    "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,"
    " autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000"
)

#: The statements that create the tables. ``@`` is the prefix of names, with the schema; ``~`` the same without it.
TABLES = f"""
CREATE TABLE IF NOT EXISTS @_head (
    only_row integer PRIMARY KEY CHECK (only_row = 1), version integer NOT NULL, epoch bigint NOT NULL
);
CREATE TABLE IF NOT EXISTS @_entries (
    number bigint PRIMARY KEY, previous text NOT NULL, nonce text NOT NULL, zone text, client_id text,
    sent double precision NOT NULL, extra text, body bytea, once text, token uuid UNIQUE
) WITH ({_VACUUMED});
DO $$ BEGIN
    -- CREATE INDEX IF NOT EXISTS would lock the table also if the index exists, and other processes write to it.
    IF to_regclass('@_once') IS NULL THEN
        CREATE UNIQUE INDEX ~_once ON @_entries (once) WHERE once IS NOT NULL;
    END IF;
END $$;
CREATE TABLE IF NOT EXISTS @_outbox (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, ord bigint, nonce text NOT NULL, zone text, client_id text,
    sent double precision NOT NULL, extra text, body bytea NOT NULL, once text
) WITH (fillfactor = 50, {_VACUUMED});
CREATE SEQUENCE IF NOT EXISTS @_commits;
CREATE TABLE IF NOT EXISTS @_processes (
    process text PRIMARY KEY, itself text NOT NULL, expires double precision NOT NULL, productions text
);
CREATE TABLE IF NOT EXISTS @_clients (
    process text NOT NULL, client_id text NOT NULL, metadata text NOT NULL, PRIMARY KEY (process, client_id)
) WITH ({_VACUUMED});
CREATE INDEX IF NOT EXISTS ~_clients_by_id ON @_clients (client_id);
CREATE TABLE IF NOT EXISTS @_sessions (
    process text NOT NULL, session_id text NOT NULL, client_id text NOT NULL, zones text NOT NULL,
    connected_at double precision NOT NULL, PRIMARY KEY (process, session_id)
) WITH ({_VACUUMED});
CREATE INDEX IF NOT EXISTS ~_sessions_by_client ON @_sessions (client_id);
CREATE TABLE IF NOT EXISTS @_zones (
    process text NOT NULL, zone text NOT NULL, connections integer NOT NULL, PRIMARY KEY (process, zone)
) WITH ({_VACUUMED});
"""

#: The functions. ``take`` and ``append`` run at every isolation level: if the snapshot is too old, the unique indexes
#: refuse the rows, and the caller tries again.
FUNCTIONS = f"""
CREATE OR REPLACE FUNCTION @_take(most bigint) RETURNS bigint LANGUAGE plpgsql AS $$
-- Move committed rows from the outbox to the entries, and drop those with a known key. The caller has the lock of the
-- appends.
DECLARE
    newest record;
    moved bigint;
BEGIN
    SELECT e.number, e.nonce INTO newest FROM @_entries e ORDER BY e.number DESC LIMIT 1;
    WITH taken AS (
        DELETE FROM @_outbox WHERE id IN (SELECT o.id FROM @_outbox o ORDER BY o.ord NULLS FIRST, o.id LIMIT most)
        RETURNING *
    ), wanted AS (
        SELECT * FROM (
            SELECT *, row_number() OVER (PARTITION BY once ORDER BY ord NULLS FIRST, id) AS copy FROM taken
        ) t
        WHERE once IS NULL OR (copy = 1 AND NOT EXISTS (SELECT FROM @_entries e WHERE e.once = t.once))
    ), placed AS (
        SELECT row_number() OVER sorted AS nth,
            lag(nonce, 1, coalesce(newest.nonce, '{GENESIS}')) OVER sorted AS before, {LETTER}
        FROM wanted WINDOW sorted AS (ORDER BY ord NULLS FIRST, id)
    )
    INSERT INTO @_entries ({COLUMNS}) SELECT coalesce(newest.number, 0) + nth, before, {LETTER} FROM placed;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved > 0 THEN
        PERFORM pg_notify('~', '');
    END IF;
    RETURN moved;
END $$;

CREATE OR REPLACE FUNCTION @_move() RETURNS bigint LANGUAGE plpgsql AS $$
-- Move committed rows from the outbox, unless another process does it now.
BEGIN
    IF NOT pg_try_advisory_xact_lock({_MOVING}, '@_head'::regclass::oid::integer) THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock({_APPENDING}, '@_head'::regclass::oid::integer);
    RETURN @_take({_BATCH});
END $$;

CREATE OR REPLACE FUNCTION @_append(
    a_token uuid, a_epoch bigint, a_since bigint,
    a_nonce text, a_zone text, a_client_id text, a_sent double precision, a_extra text, a_body bytea,
    a_once text,
    OUT epoch bigint, OUT number bigint, OUT nonce text, OUT previous text
) LANGUAGE plpgsql AS $$
-- Append an entry, or find the one that an earlier attempt has appended, or that has the same key. If that cannot be
-- found out, because entries after a_since were dropped, append nothing: then the result is the end of the log, and
-- previous is NULL.
BEGIN
    PERFORM pg_advisory_xact_lock({_APPENDING}, '@_head'::regclass::oid::integer);
    SELECT h.epoch INTO STRICT epoch FROM @_head h WHERE h.only_row = 1;
    SELECT e.number, e.nonce, e.previous INTO number, nonce, previous FROM @_entries e WHERE e.token = a_token;
    IF FOUND THEN
        RETURN;
    END IF;
    WHILE EXISTS (SELECT FROM @_outbox) LOOP
        PERFORM @_take({_BATCH});
    END LOOP;
    IF a_once IS NOT NULL THEN
        SELECT e.number, e.nonce, e.previous INTO number, nonce, previous FROM @_entries e WHERE e.once = a_once;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    SELECT e.number, e.nonce INTO number, nonce FROM @_entries e ORDER BY e.number DESC LIMIT 1;
    number := coalesce(number, 0);
    nonce := coalesce(nonce, '{GENESIS}');
    IF epoch <> a_epoch OR
        (number > a_since AND NOT EXISTS (SELECT FROM @_entries e WHERE e.number = a_since + 1)) THEN
        RETURN;
    END IF;
    previous := nonce;
    number := number + 1;
    nonce := a_nonce;
    INSERT INTO @_entries ({COLUMNS}, token)
        VALUES (number, previous, a_nonce, a_zone, a_client_id, a_sent, a_extra, a_body, a_once, a_token);
    PERFORM pg_notify('~', '');
END $$;

CREATE OR REPLACE FUNCTION @_committing() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
-- Number a row of the outbox in the order of the commits, and wake the followers after the commit.
BEGIN
    UPDATE @_outbox SET ord = nextval('@_commits') WHERE id = new.id;
    PERFORM pg_notify('~', '');
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION @_send(
    zone text DEFAULT NULL, client_id text DEFAULT NULL, event text DEFAULT NULL, data text DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF data IS NULL THEN
        RAISE EXCEPTION 'data is NULL';
    END IF;
    IF strpos(event, chr(10)) > 0 OR strpos(event, chr(13)) > 0 THEN
        RAISE EXCEPTION 'event contains a line break';
    END IF;
    IF starts_with(event, 'ssehub.') THEN
        RAISE EXCEPTION 'events that begin with ssehub. are the hub''s own';
    END IF;
    IF length(zone) NOT BETWEEN 1 AND 255 OR length(client_id) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION 'zone and client_id must be 1 to 255 characters';
    END IF;
    IF regexp_match(concat(zone, client_id), '[\\u0001-\\u001f\\u007f-\\u009f]') IS NOT NULL THEN
        RAISE EXCEPTION 'zone or client_id contains a control character';
    END IF;
    INSERT INTO @_outbox (nonce, zone, client_id, sent, body) VALUES (
        left(gen_random_uuid()::text, 8), zone, client_id, extract(epoch FROM clock_timestamp()),
        convert_to(
            coalesce('event: ' || event || chr(10), '') || 'data: '
            || replace(replace(replace(data, chr(13) || chr(10), chr(10)), chr(13), chr(10)),
                       chr(10), chr(10) || 'data: ')
            || chr(10) || chr(10), 'UTF8')
    );
END $$;
"""

#: What follows the functions. Other programs call two functions with any search path, so theirs is the log's schema.
REST = f"""
DROP TRIGGER IF EXISTS ~_committing ON @_outbox;
CREATE CONSTRAINT TRIGGER ~_committing AFTER INSERT ON @_outbox DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION @_committing();
DO $$ DECLARE
    home text := (SELECT c.relnamespace::regnamespace::text FROM pg_class c WHERE c.oid = '@_head'::regclass);
BEGIN
    EXECUTE format('ALTER FUNCTION @_committing() SET search_path = %s, pg_temp', home);
    REVOKE EXECUTE ON FUNCTION @_committing() FROM PUBLIC;  -- others could use it for triggers of their own
    EXECUTE format('ALTER FUNCTION @_send(text, text, text, text) SET search_path = %s, pg_temp', home);
END $$;
INSERT INTO @_head VALUES (1, {VERSION}, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000)
    ON CONFLICT DO NOTHING;
"""


def check_schema(schema: str | None) -> str | None:
    """Check the name of a schema.

    :raises ValueError: if it contains characters that a schema seldom has.
    :raises TypeError: if it is neither a string nor None.
    """
    if schema is not None and not isinstance(schema, str):
        raise TypeError(f"schema must be a str, not {type(schema).__name__}")
    if schema is not None and not _SCHEMA.fullmatch(schema):
        raise ValueError(f"schema must be 1 to 63 letters, digits, '_', '-', '.' and blanks: {schema!r}")
    return schema


def prefix_of(name: str, schema: str | None) -> str:
    """Return the beginning of the names of a log's tables, with the schema.

    :param name: the name of the log, see :func:`~ssehub.log.sql.prefix.check_prefix`.
    """
    return name.lower() if schema is None else f'"{schema}".{name.lower()}'


class Statements:
    """The statements of a log.

    :param name: the name of the log.
    :param schema: its schema; None for the search path.
    """

    def __init__(self, name: str, schema: str | None) -> None:
        prefix = prefix_of(name, schema)
        marks = ", ".join("?" * len(Letter._fields))
        newest = f"SELECT number, nonce FROM {prefix}_entries ORDER BY number DESC LIMIT 1"
        end = f"h.epoch, coalesce(n.number, 0), coalesce(n.nonce, '{GENESIS}')"
        #: The channel of the notifications.
        self.channel: str = name.lower()
        self.listen: str = f'LISTEN "{name.lower()}"'
        self.probe: str = f"SELECT pg_notify('{name.lower()}', %s)"
        self.version: str = f"SELECT version FROM {prefix}_head"
        self.existing: str = f"SELECT to_regclass('{prefix}_head')"
        # With `only_row = 1`, the planner knows that there is one row. Otherwise it expects so many before the first
        # ANALYZE that it compiles the statement (JIT), which takes a fifth of a second each time.
        self.end: str = f"SELECT {end} FROM {prefix}_head h LEFT JOIN ({newest}) n ON true WHERE h.only_row = 1"
        self.append: str = (
            f"SELECT epoch, number, nonce, previous FROM {prefix}_append(%s::uuid, %s::bigint, %s::bigint,"
            " %s::text, %s::text, %s::text, %s::double precision, %s::text, %s::bytea, %s::text)"
        )
        self.move: str = f"SELECT {prefix}_move()"
        #: The end of the log, whether this server is a standby, whether the outbox has rows, and the rows of a page, or
        #: one row of NULLs.
        self.read: str = (
            f"SELECT {end}, pg_is_in_recovery(), EXISTS (SELECT FROM {prefix}_outbox),"
            f" {', '.join(f'e.{column}' for column in COLUMNS.split(', '))}"
            f" FROM {prefix}_head h LEFT JOIN ({newest}) n ON true"
            f" LEFT JOIN (SELECT {COLUMNS} FROM {prefix}_entries WHERE number > %s::bigint ORDER BY number"
            " LIMIT %s::bigint) e ON true WHERE h.only_row = 1 ORDER BY e.number"
        )
        self.post: str = f"INSERT INTO {prefix}_outbox ({LETTER}) VALUES ({marks})"
        self.vacuum: str = f"VACUUM (SKIP_LOCKED, TRUNCATE false) {prefix}_entries"
