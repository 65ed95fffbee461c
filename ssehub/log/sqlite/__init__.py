"""The log in a SQLite file, which the processes of one machine share. It needs nothing but Python."""

from ssehub.log.sqlite.log import SQLiteLog

__all__ = ["SQLiteLog"]
