"""ProcessLocal: objects whose locks, threads and connections are made anew in each forked process."""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod


class ProcessLocal(ABC):
    """An object that renews its locks, threads and connections in each process, when it is first used there.

    After a fork the old ones must not be used: a lock may have been held at the fork, and threads and connections
    belong to the parent. They are renewed at the first use, not at the fork itself, because a gunicorn worker applies
    gevent's patches after the fork, and a lock made before that would block all greenlets.
    """

    def __init__(self) -> None:
        self._is_new = True
        _all.add(self)

    def _begin(self) -> None:
        """Call :meth:`_renew`, unless that was done in this process. Safe to use from any thread."""
        if self._is_new:
            with _making():
                if self._is_new:
                    self._renew()
                    self._is_new = False

    @abstractmethod
    def _renew(self) -> None:
        """Make the locks, threads and connections of this process. It is called under a lock, so it must not block."""


class _Making:
    """The lock under which objects are renewed, and the type of lock that it is."""

    kind, lock = threading.Lock, threading.Lock()


def _making() -> threading.Lock:
    """Return the lock. If gevent's patches came after the import, replace it: the old lock blocks all greenlets."""
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
