"""Timers: a timer wheel for many objects."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Timers(Generic[T]):
    """A timer wheel: each object has one timer, which fires with the precision of a tick. Not thread-safe.

    :param tick: length of a tick in seconds.
    :param now: the start time.
    """

    def __init__(self, tick: float, now: float) -> None:
        self._tick = tick
        self._slots: dict[int, dict[T, None]] = {}
        self._slot_of: dict[T, int] = {}
        self._next = int(now / tick)

    @property
    def next_tick(self) -> float:
        """When :meth:`expired` has to be called next."""
        return self._next * self._tick

    def set(self, thing: T, due: float) -> None:
        """Set the timer of an object. An earlier setting is replaced."""
        self.cancel(thing)
        slot = self._slot_of[thing] = max(int(due / self._tick) + 1, self._next)
        self._slots.setdefault(slot, {})[thing] = None

    def cancel(self, thing: T) -> None:
        """Cancel the timer of an object."""
        slot = self._slot_of.pop(thing, None)
        if slot is not None:
            things = self._slots[slot]
            del things[thing]
            if not things:
                del self._slots[slot]

    def expired(self, now: float) -> list[T]:
        """Return the objects whose timers have expired. Each timer has to be set again."""
        found: list[T] = []
        while self._next <= int(now / self._tick):
            found += self._slots.pop(self._next, ())
            self._next += 1
        for thing in found:
            del self._slot_of[thing]
        return found
