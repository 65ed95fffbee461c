"""Offsets: a sorted list of numbers. Numbers are added at its end, and mostly removed at its front."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

#: The number of removed items at the front that are kept before they are deleted together.
_SLACK = 64


class Offsets:
    """The offsets of entries, in ascending order. Not thread-safe.

    Reading takes O(log n) plus the number of returned items. Appending and removing at the front take constant time on
    average.
    """

    __slots__ = ("_items", "_start")

    def __init__(self) -> None:
        self._items: list[int] = []
        self._start = 0

    def __len__(self) -> int:
        return len(self._items) - self._start

    def append(self, offset: int) -> None:
        """Add an offset that is greater than all others."""
        self._items.append(offset)

    def popleft(self) -> int:
        """Remove the smallest offset, and return it. The list must not be empty."""
        offset = self._items[self._start]
        self._start += 1
        if self._start > _SLACK and self._start * 2 > len(self._items):
            del self._items[: self._start]
            self._start = 0
        return offset

    def remove(self, offset: int) -> None:
        """Remove an offset that is in the list."""
        if offset == self._items[self._start]:
            self.popleft()
        else:
            del self._items[bisect_left(self._items, offset, self._start)]

    def between(self, after: int, upto: int, limit: int) -> list[int]:
        """Return the first ``limit`` offsets that are greater than ``after`` and not greater than ``upto``."""
        items = self._items
        begin = bisect_right(items, after, self._start)
        end = bisect_right(items, upto, begin)
        return items[begin : min(end, begin + limit)]

    def count(self, after: int) -> int:
        """Return how many offsets are greater than ``after``."""
        return len(self._items) - bisect_right(self._items, after, self._start)

    def last(self, count: int) -> list[int]:
        """Return the ``count`` greatest offsets, or all if there are fewer."""
        return self._items[max(self._start, len(self._items) - count) :]

    def from_end(self, count: int) -> int:
        """Return the offset with exactly ``count`` greater ones. The list must be longer than ``count``."""
        return self._items[-1 - count]

    def next(self, after: int) -> int | None:
        """Return the smallest offset that is greater than ``after``, or None."""
        at = bisect_right(self._items, after, self._start)
        return self._items[at] if at < len(self._items) else None
