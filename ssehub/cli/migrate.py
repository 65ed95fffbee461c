"""``ssehub migrate``: creates the tables of a log, or prints the SQL that does it."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

from ssehub.cli.arguments import add_log
from ssehub.cli.terminal import show
from ssehub.log.sql.log import SQLLog
from ssehub.log.urls import open_log

if TYPE_CHECKING:
    from ssehub.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    """Add the command."""
    command = commands.add_parser("migrate", help="create the tables of a log in a database, or print the SQL")
    add_log(command, "create the tables of this log")
    command.add_argument("--schema", help="the schema of the tables in PostgreSQL (the first one of the search path)")
    command.add_argument("--role", help="give this user of PostgreSQL the rights that the application needs")
    command.add_argument("--print", action="store_true", help="print the SQL, and change nothing")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if not options.log:
        raise ValueError("give the URL of the log with --log")
    chosen: dict[str, Any] = {} if options.schema is None else {"schema": options.schema}
    if options.name != "ssehub":
        chosen["name"] = options.name
    with contextlib.closing(open_log(options.log, **chosen)) as log:
        if not isinstance(log, SQLLog):
            show("nothing has to be done: this log has no tables")
        elif options.print:
            show(log.migration(options.role))
        else:
            log.migrate(options.role)
            show("the tables of the log are there")
    return 0
