"""Log: checks the shared log itself, with the checks for its kind."""

from __future__ import annotations

from collections.abc import Iterator

from ssehub.log.urls import open_log
from ssehub.tools.doctor.checks import redis, sqlite
from ssehub.tools.doctor.finding import Finding, fail, skip
from ssehub.tools.doctor.target import Target

_REDIS = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")


def ask(target: Target, epochs: frozenset[tuple[int, int]] | None) -> Iterator[Finding]:
    """Check the log of a target.

    :param epochs: the partitions that the stream reads, each with its epoch; None if they are not known.
    """
    assert target.log is not None
    scheme = target.log.partition(":")[0].lower()
    if scheme in _REDIS:
        yield from redis.ask(target)
    elif scheme == "sqlite":
        yield from sqlite.ask(target, epochs)
    else:
        try:
            open_log(target.log)
        except ValueError as error:
            yield fail("log", str(error))
        else:
            yield skip("log", f"there are no checks for a log with {scheme}:")
