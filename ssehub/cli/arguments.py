"""Arguments: command line arguments that several commands share."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from ssehub.client.responses import bare
from ssehub.client.transport import check_url
from ssehub.log import Log
from ssehub.log.urls import open_log

if TYPE_CHECKING:
    #: The type that :meth:`argparse.ArgumentParser.add_subparsers` returns.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_token(command: argparse.ArgumentParser, meaning: str) -> None:
    """Add the argument for the token of the service."""
    command.add_argument("--token", default=os.environ.get("SSEHUB_TOKEN"), help=f"{meaning} ($SSEHUB_TOKEN)")


def add_headers(command: argparse.ArgumentParser) -> None:
    """Add the argument for request headers."""
    command.add_argument(
        "--header", action="append", type=_header, default=[], metavar="'NAME: VALUE'", help="may be repeated"
    )


def add_log(command: argparse.ArgumentParser, meaning: str) -> None:
    """Add the arguments for a shared log; see :func:`shared_log`.

    The address can also come from the environment. It may contain a password, and every user of a machine can see the
    arguments of a command.
    """
    command.add_argument(
        "--log",
        metavar="URL",
        default=os.environ.get("SSEHUB_LOG"),
        help=f"{meaning}, for instance sqlite:hub.db or redis://localhost:6379/0 ($SSEHUB_LOG)",
    )
    command.add_argument(
        "--name",
        default="ssehub",
        help="name of the shared log; each hub on a server or in a file needs its own (%(default)s)",
    )
    command.add_argument(
        "--partitions", type=int, default=1, metavar="N", help="number of partitions of a log on Redis (1)"
    )


def shared_log(options: argparse.Namespace, size: int) -> Log | None:
    """Return the log that the arguments describe, or None.

    :raises ValueError: if its URL is invalid, or it has no partitions and the arguments ask for some.
    """
    if not options.log:
        return None
    chosen = {"name": options.name} if options.name != "ssehub" else {}
    if options.partitions != 1:
        chosen["partitions"] = options.partitions
    return open_log(options.log, size=size, **chosen)


def split_http(url: str) -> SplitResult:
    """Split a URL into its parts.

    :raises ValueError: if it is not an HTTP URL.
    """
    check_url(url)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        hint = "" if "://" in url or "@" in url else f"; perhaps it is http://{bare(url)}"
        raise ValueError(f"not an http URL: {bare(url)}{hint}")
    return parts


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError("it is not like 'NAME: VALUE'")
    return name.strip(), value.strip()
