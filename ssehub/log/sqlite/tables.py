"""The tables of a log in a SQLite file. No connections.

The table ``head`` has one row: the version of the tables, and the epoch, offset and nonce of the newest entry. A
trigger moves it when an entry is inserted, so one statement appends an entry. SQLite has one writer at a time, from its
first write to its commit. So offsets have no holes and are in the order of the commits, also if the entry is part of a
transaction of the application.

Any program can send with ``INSERT INTO ssehub_send (zone, client_id, event, data)``. A NULL means all zones, all
clients, or an event of type ``message``.
"""

from __future__ import annotations

import re

from ssehub.log.sql.row import COLUMNS, LETTER, Letter

#: The version of the tables.
VERSION = 1

#: Returns the path of the file that a connection uses; ``""`` for a database in memory.
MAIN_FILE = "SELECT file FROM pragma_database_list WHERE name = 'main'"
#: The statements that create the tables. ``$`` is the prefix.
CREATE = """
CREATE TABLE IF NOT EXISTS $_head (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    version INTEGER NOT NULL CHECK (typeof(version) = 'integer'),
    epoch INTEGER NOT NULL CHECK (typeof(epoch) = 'integer' AND epoch > 0),
    number INTEGER NOT NULL CHECK (typeof(number) = 'integer' AND number BETWEEN 0 AND 1000000000000000000),
    nonce TEXT NOT NULL CHECK (typeof(nonce) = 'text' AND length(nonce) = 8 AND nonce NOT GLOB '*[^0-9a-f]*')
);
CREATE TABLE IF NOT EXISTS $_entries (
    number INTEGER PRIMARY KEY, previous TEXT NOT NULL, nonce TEXT NOT NULL, zone TEXT, client_id TEXT,
    sent REAL NOT NULL, extra TEXT, body BLOB, once TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS $_once ON $_entries (once) WHERE once IS NOT NULL;
CREATE TRIGGER IF NOT EXISTS $_move AFTER INSERT ON $_entries BEGIN
    UPDATE $_head SET number = new.number, nonce = new.nonce WHERE number < new.number;
END;
CREATE TABLE IF NOT EXISTS $_processes (
    process TEXT PRIMARY KEY, itself TEXT NOT NULL, expires REAL NOT NULL CHECK (typeof(expires) = 'real'),
    productions TEXT
);
CREATE TABLE IF NOT EXISTS $_clients (
    process TEXT NOT NULL, client_id TEXT NOT NULL, metadata TEXT NOT NULL, PRIMARY KEY (process, client_id)
);
CREATE INDEX IF NOT EXISTS $_clients_by_id ON $_clients (client_id);
CREATE TABLE IF NOT EXISTS $_sessions (
    process TEXT NOT NULL, session_id TEXT NOT NULL, client_id TEXT NOT NULL, zones TEXT NOT NULL,
    connected_at REAL NOT NULL, PRIMARY KEY (process, session_id)
);
CREATE INDEX IF NOT EXISTS $_sessions_by_client ON $_sessions (client_id);
CREATE TABLE IF NOT EXISTS $_zones (
    process TEXT NOT NULL, zone TEXT NOT NULL, connections INTEGER NOT NULL, PRIMARY KEY (process, zone)
);
CREATE VIEW IF NOT EXISTS $_send AS SELECT NULL AS zone, NULL AS client_id, NULL AS event, NULL AS data WHERE 0;
CREATE TRIGGER IF NOT EXISTS $_send_insert INSTEAD OF INSERT ON $_send BEGIN
    SELECT raise(ABORT, 'data is NULL') WHERE new.data IS NULL;
    SELECT raise(ABORT, 'event contains a line break')
        WHERE instr(new.event, char(10)) OR instr(new.event, char(13));
    SELECT raise(ABORT, 'events that begin with ssehub. are the hub''s own') WHERE substr(new.event, 1, 7) = 'ssehub.';
    SELECT raise(ABORT, 'zone and client_id must be 1 to 255 characters')
        WHERE length(new.zone) NOT BETWEEN 1 AND 255 OR length(new.client_id) NOT BETWEEN 1 AND 255;
    SELECT raise(ABORT, 'zone or client_id contains a control character')
        FROM (SELECT '*[' || char(1, 45, 31, 127, 45, 159) || ']*' AS control)
        WHERE new.zone GLOB control OR new.client_id GLOB control;
    INSERT INTO $_entries (number, previous, nonce, zone, client_id, sent, body)
        SELECT number + 1, nonce, lower(hex(randomblob(4))), new.zone, new.client_id,
            (julianday('now') - 2440587.5) * 86400.0,
            CASE WHEN coalesce(new.event, '') IN ('', 'message') THEN '' ELSE 'event: ' || new.event || char(10) END
                || 'data: ' || replace(replace(replace(new.data, char(13, 10), char(10)), char(13), char(10)),
                           char(10), char(10) || 'data: ')
                || char(10, 10)
        FROM $_head;
END
"""


def create(prefix: str) -> list[str]:
    """Return the statements that create the tables, if they do not exist."""
    # The statements inside a trigger end with a semicolon, too; they are indented.
    return re.split(r";\n(?! )(?!END)", CREATE.strip().replace("$", prefix))


class Statements:
    """The statements of a log.

    :param prefix: the beginning of the names of its tables.
    """

    def __init__(self, prefix: str) -> None:
        marks = ", ".join("?" * len(Letter._fields))
        #: The names of all tables, indexes, triggers and views.
        self.names: set[str] = set(re.findall(rf"IF NOT EXISTS ({prefix}_\w+)", "".join(create(prefix))))
        self.create: list[str] = create(prefix)
        self.existing: str = "SELECT name FROM sqlite_master"
        self.version: str = f"SELECT version FROM {prefix}_head"
        self.clear: str = f"DELETE FROM {prefix}_entries"
        self.begin: str = f"INSERT INTO {prefix}_head VALUES (1, {VERSION}, ?, 0, ?)"
        self.head: str = f"SELECT epoch, number, nonce FROM {prefix}_head"
        # Rows after the head are not part of the log: another program has moved the head back.
        insert = f"INSERT OR REPLACE INTO {prefix}_entries (number, previous, {LETTER})"
        self.insert: str = f"{insert} VALUES (?, ?, {marks})"
        self.read: str = (
            f"SELECT {COLUMNS} FROM {prefix}_entries WHERE number > ? AND number <= ? ORDER BY number LIMIT ?"
        )
        #: The entry with a key.
        self.first: str = f"SELECT number, nonce, previous FROM {prefix}_entries WHERE once = ? AND number <= ?"
        #: The same as ``insert``, without reading the head first. It inserts nothing if the key is there; its last
        #: parameter is the key again.
        self.insert_next: str = (
            f"{insert} SELECT h.number + 1, h.nonce, {marks} FROM {prefix}_head h WHERE NOT EXISTS"
            f" (SELECT 1 FROM {prefix}_entries e WHERE e.once = ? AND e.number <= h.number)"
        )
