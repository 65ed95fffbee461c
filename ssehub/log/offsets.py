"""Offsets: a sorted list of numbers that grows at its end and shrinks, mostly, at its front."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

#: Removed numbers that a list may still hold at its front; then they are cut off in one go.
_SLACK = 64


class Offsets:
    """Offsets of entries, ascending. Not thread-safe.

    Reading costs what it returns and the logarithm of the length. Appending and removing at the front cost the same
    however long the list is.
    """

    __slots__ = ("_items", "_start")

    def __init__(self) -> None:
        self._items: list[int] = []
        self._start = 0

    def __len__(self) -> int:
        return len(self._items) - self._start

    def append(self, offset: int) -> None:
        """Add one that is greater than all others."""
        self._items.append(offset)

    def popleft(self) -> int:
        """Remove the smallest and return it; there must be one."""
        offset = self._items[self._start]
        self._start += 1
        if self._start > _SLACK and self._start * 2 > len(self._items):
            del self._items[: self._start]
            self._start = 0
        return offset

    def remove(self, offset: int) -> None:
        """Remove one that is there."""
        if offset == self._items[self._start]:
            self.popleft()
        else:
            del self._items[bisect_left(self._items, offset, self._start)]

    def between(self, after: int, upto: int, limit: int) -> list[int]:
        """Return those greater than ``after`` and not greater than ``upto``, at most ``limit``."""
        items = self._items
        begin = bisect_right(items, after, self._start)
        end = bisect_right(items, upto, begin)
        return items[begin : min(end, begin + limit)]

    def count(self, after: int) -> int:
        """Return how many are greater than ``after``."""
        return len(self._items) - bisect_right(self._items, after, self._start)

    def last(self, count: int) -> list[int]:
        """Return the greatest so many."""
        return self._items[max(self._start, len(self._items) - count) :]

    def from_end(self, count: int) -> int:
        """Return the one that has ``count`` greater ones; there must be one."""
        return self._items[-1 - count]

    def next(self, after: int) -> int | None:
        """Return the smallest that is greater than ``after``; None if there is none."""
        at = bisect_right(self._items, after, self._start)
        return self._items[at] if at < len(self._items) else None
