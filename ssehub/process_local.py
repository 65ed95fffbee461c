"""ProcessLocal: what each process has to make for itself, because nothing made before a fork may be used after it."""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod


class ProcessLocal(ABC):
    """Make anew in each process, when it is first needed, what may not cross a fork.

    Locks may have been held at the fork, and threads and connections are the parent's. It is not made at the fork
    itself: in a gunicorn worker gevent patches after that, and locks from before would not do.
    """

    def __init__(self) -> None:
        self._is_new = True
        _all.add(self)

    def _begin(self) -> None:
        """Have :meth:`_renew` called, if it has not been in this process. Any thread may call this."""
        if self._is_new:
            with _making():
                if self._is_new:
                    self._renew()
                    self._is_new = False

    @abstractmethod
    def _renew(self) -> None:
        """Make what belongs to one process, in no time: it is called under a lock."""


class _Making:
    """Hold the lock under which things are made anew."""

    kind, lock = threading.Lock, threading.Lock()


def _making() -> threading.Lock:
    """Return the lock: one that gevent, which may patch after the import, knows. Another would stop all greenlets."""
    if _Making.kind is not threading.Lock:
        _Making.kind, _Making.lock = threading.Lock, threading.Lock()
    return _Making.lock


_all: weakref.WeakSet[ProcessLocal] = weakref.WeakSet()


def _renew_all() -> None:
    _Making.lock = threading.Lock()
    for one in list(_all):
        one._is_new = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
