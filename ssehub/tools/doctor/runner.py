"""Runner: runs all checks on one stream."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

from ssehub.tools.doctor.checks import (
    answer,
    delivery,
    edge,
    leaving,
    log,
    processes,
    resuming,
    server,
    serving,
    silence,
    threads,
)
from ssehub.tools.doctor.finding import Finding, skip
from ssehub.tools.doctor.session import Session
from ssehub.tools.doctor.target import Target

#: The checks in order; and whether a check is skipped if there is no stream.
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
    """Check a stream, and its log if one is given; yield each finding as soon as it is known.

    It takes about ``target.time`` seconds and blocks the thread that iterates. It opens streams in threads of its own,
    which have ended when it ends. Ctrl-C, also when thrown into the generator, ends it early: the findings so far are
    still yielded.

    :raises KeyboardInterrupt: after the last finding, if it was interrupted.
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
        yield from log.ask(target, examination.epochs)


def _answers(examination: Session) -> Iterator[Finding]:
    told = False
    for ask, needs_stream in _QUESTIONS:
        if not needs_stream or examination.is_open:
            yield from ask(examination)
        elif not told:
            told = True
            yield skip("server, threads, log", "there is no open stream to check them with")
