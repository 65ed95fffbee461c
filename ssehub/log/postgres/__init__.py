"""The log in a PostgreSQL database, which the processes of many machines share. It needs psycopg."""

from ssehub.log.postgres.log import PostgresLog

__all__ = ["PostgresLog"]
