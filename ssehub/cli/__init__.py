"""The command line: ``ssehub serve`` and other commands. Each has its own module."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import requests

from ssehub import __version__
from ssehub.cli import bench, doctor, listen, migrate, send, serve
from ssehub.cli.terminal import say
from ssehub.client.responses import reason
from ssehub.exceptions import SSEHubError

_COMMANDS = (serve, listen, send, doctor, bench, migrate)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param arguments: the arguments; by default those of the process.
    :returns: the exit code: 0, 1 for a failure, 2 for invalid arguments, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # for example `ssehub listen ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (SSEHubError, requests.RequestException, ValueError, OSError) as error:
        say(f"ssehub: {reason(error)}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ssehub", description="Server-Sent Events for threaded Python.")
    parser.add_argument("--version", action="version", version=f"ssehub {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_to(commands)
    return parser
