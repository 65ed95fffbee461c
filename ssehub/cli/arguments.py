"""Arguments: what several commands take."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from ssehub.integrations.settings import open_log
from ssehub.log import Log

if TYPE_CHECKING:
    #: What :meth:`argparse.ArgumentParser.add_subparsers` returns.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_token(command: argparse.ArgumentParser, meaning: str) -> None:
    """Let a command take the service's token."""
    command.add_argument("--token", default=os.environ.get("SSEHUB_TOKEN"), help=f"{meaning} ($SSEHUB_TOKEN)")


def add_headers(command: argparse.ArgumentParser) -> None:
    """Let a command take request headers."""
    command.add_argument(
        "--header", action="append", type=_header, default=[], metavar="'NAME: VALUE'", help="may be repeated"
    )


def add_log(command: argparse.ArgumentParser, meaning: str) -> None:
    """Let a command take a log that is shared; see :func:`shared_log`.

    The address can have a password, and every user of the machine sees a command's arguments: so it can also come from
    the environment.
    """
    command.add_argument(
        "--log",
        metavar="URL",
        default=os.environ.get("SSEHUB_LOG"),
        help=f"{meaning}, for instance redis://localhost:6379/0 ($SSEHUB_LOG)",
    )
    command.add_argument(
        "--name", default="ssehub", help="name of the shared log, one for each hub on a server (%(default)s)"
    )
    command.add_argument(
        "--partitions", type=int, default=1, metavar="N", help="streams that the shared log is spread over (1)"
    )


def shared_log(options: argparse.Namespace, size: int) -> Log | None:
    """Make the log that was asked for, if one was."""
    return open_log(options.log, {"name": options.name, "size": size, "partitions": options.partitions})


def split_http(url: str) -> SplitResult:
    """Split an address.

    :raises ValueError: if it is none of the web.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"not an http address: {url!r}; perhaps it is http://{url}")
    return parts


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"not 'NAME: VALUE': {text!r}")
    return name.strip(), value.strip()
