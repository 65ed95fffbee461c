"""SequenceCheck: checks the numbers that one stream has received from one sender."""

from __future__ import annotations


class SequenceCheck:
    """Checks that numbers increase by one.

    :param first: the first expected number; None: any.

    :ivar next: the next expected number, or None.
    :ivar missing: number of skipped numbers that have not arrived later.
    :ivar received: number of different numbers that arrived.
    :ivar late: the part of these that arrived after a greater one.
    """

    __slots__ = ("doubles", "late", "missing", "next", "received")

    def __init__(self, first: int | None) -> None:
        self.next = first
        self.missing: set[int] = set()
        self.reset()

    def reset(self) -> None:
        """Reset the counts. The next expected number does not change."""
        self.missing.clear()
        self.received: int = 0
        self.doubles: int = 0
        self.late: int = 0

    def take(self, number: int) -> str:
        """Check the next number. Return a description of the fault, or an empty text."""
        due = self.next
        if due is None or number == due:
            self.next = number + 1
            self.received += 1
            return ""
        if number > due:
            self.missing.update(range(due, number))
            self.next = number + 1
        elif number in self.missing:
            self.missing.remove(number)
            self.late += 1
        else:
            self.doubles += 1
            return f"{number} once more"
        self.received += 1
        return f"{number} where {due} was due"
