"""A real PostgreSQL server for tests, in its own process. Root starts it as another user, because it refuses root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from tests.servers import free_port, missing
from tests.streams import GUARD, until

#: The owner of the tables in tests, a superuser.
OWNER = "ssehub"
_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
max_prepared_transactions = 5
shared_buffers = 32MB
"""


def program(name: str) -> str:
    """Return the path of a program of PostgreSQL. Skip the test if it is not installed."""
    found = shutil.which(name)
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: float(one.parent.name))
    if found is None and folders:
        found = shutil.which(name, path=str(folders[-1]))
    if found is None:
        missing("PostgreSQL")
    return str(found)


class PostgresServer:
    """A server on its own port, which can be paused, killed and started again.

    :param primary: the server of which this one is a standby; None for a primary.
    """

    def __init__(self, primary: PostgresServer | None = None, *, synchronous_commit: str = "on") -> None:
        self.port = free_port()
        #: Not in pytest's folder, because another user cannot enter that.
        self.folder = Path(tempfile.mkdtemp(prefix="ssehub-postgres-", dir="/tmp"))
        self._data = self.folder / "data"
        self._user = _user()
        if self._user:
            shutil.chown(self.folder, self._user)
        if primary is None:
            self._run("initdb", "-D", str(self._data), "-U", OWNER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
            with (self._data / "postgresql.conf").open("a") as file:
                file.write(f"{_SETTINGS}synchronous_commit = {synchronous_commit}\n")
        else:
            self._run("pg_basebackup", "-D", str(self._data), "-d", primary.dsn(), "-R", "-c", "fast")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def dsn(self, user: str = OWNER, database: str = "postgres") -> str:
        """Return the address of a database."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def new_database(self, name: str) -> str:
        """Create a database. Return its address."""
        self.run(f'CREATE DATABASE "{name}"')
        return self.dsn(database=name)

    def run(self, statement: str, *parameters: Any, dsn: str | None = None) -> list[tuple[Any, ...]]:
        """Execute a statement. Return its rows."""
        with psycopg.connect(dsn or self.dsn(), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        command = (program("postgres"), "-D", str(self._data), "-p", str(self.port))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, user=self._user, cwd="/")
        until(self._answers, f"postgres to answer; see {self.folder / 'log'}", 3 * GUARD)

    def kill(self) -> None:
        """Kill the server and its processes, as at a crash. What was committed stays."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGSTOP)  # it starts no more processes
        children = self._children()
        for one in (*children, self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        self._process.wait(GUARD)
        self._process = None
        # The next server does not start while one of them still has the shared memory.
        until(lambda: not any(map(_is_alive, children)), "the processes of the server to end")

    def stop(self, how: int = signal.SIGINT) -> None:
        """Stop the server as an administrator does: at once, or with SIGTERM when all clients have left."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(3 * GUARD)
        self._process = None

    def pause(self) -> None:
        """Stop the server and its processes from answering, until :meth:`go_on` or :meth:`kill` is called."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Continue after :meth:`pause`."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop the server, and start it again."""
        self.stop()
        self.start()

    def promote(self) -> None:
        """Make a standby the primary."""
        self.run("SELECT pg_promote()")

    def end_backends(self, where: str = "true") -> int:
        """End the processes of clients; return how many."""
        (found,) = self.run(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            f" WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND {where}"
        )
        return int(found[0])

    def close(self) -> None:
        """End the server, and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        for one in (self._process.pid, *self._children()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)

    def _children(self) -> list[int]:
        assert self._process is not None
        listed = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with contextlib.suppress(OSError):
            return [int(number) for number in listed.read_text().split()]
        return []

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
        try:
            return self.run("SELECT 1") == [(1,)]
        except psycopg.OperationalError:
            return False

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [program(name), *arguments], check=True, user=self._user, cwd="/", stdout=subprocess.DEVNULL, timeout=120
        )


def _is_alive(process: int) -> bool:
    """Return whether a process runs. One that has ended may stay in the list, if nobody waits for it."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def _user() -> str | None:
    """Return the user as whom the server runs; None for the own one."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None
