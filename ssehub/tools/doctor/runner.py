"""Runner: one stream is looked at, question after question."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

from ssehub.tools.doctor.checks import (
    answer,
    delivery,
    edge,
    leaving,
    processes,
    redis,
    resuming,
    server,
    serving,
    silence,
    threads,
)
from ssehub.tools.doctor.finding import Finding, skip
from ssehub.tools.doctor.session import Session
from ssehub.tools.doctor.target import Target

#: In this order; and whether there is nothing to ask of what is no stream.
_QUESTIONS = (
    (answer.ask, False),
    (edge.ask, False),
    (server.ask, True),
    (threads.ask, True),
    (serving.ask, True),
    (processes.ask, True),
    (delivery.ask, True),
    (leaving.ask, True),
    (silence.ask, False),
    (serving.ask_again, True),
    (resuming.ask, True),
)


def examine(target: Target) -> Generator[Finding, None, None]:
    """Look at a stream, and at its log if that is asked for; yield each finding as it is there.

    It takes about ``target.time`` seconds, blocks the thread that iterates, and opens the streams it needs in threads
    of its own, which are gone when it ends. Ctrl-C ends it early, thrown in as well: what is known by then is told.

    :raises KeyboardInterrupt: after the last finding, if there was one.
    """
    interrupted = False
    examination = Session(target)
    with contextlib.closing(examination):
        try:
            yield from _answers(examination)
        except KeyboardInterrupt:
            interrupted = True
            yield from silence.judge(examination)
    if interrupted:
        yield skip("the rest", "interrupted")
        raise KeyboardInterrupt
    if target.log is not None:
        yield from redis.ask(target)


def _answers(examination: Session) -> Iterator[Finding]:
    told = False
    for ask, needs_stream in _QUESTIONS:
        if not needs_stream or examination.is_open:
            yield from ask(examination)
        elif not told:
            told = True
            yield skip("server, threads, log", "there is no open stream to ask them of")
