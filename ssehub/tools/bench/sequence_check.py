"""SequenceCheck: which numbers one stream has seen of one sender, and what is wrong with them."""

from __future__ import annotations


class SequenceCheck:
    """Check that numbers rise by one.

    :param first: the number due first; None: whichever comes first.

    :ivar next: the number due next, or None.
    :ivar missing: numbers that were skipped and have not come later.
    :ivar received: numbers that came, each counted once.
    :ivar late: of those, the ones that came after a greater one.
    """

    __slots__ = ("doubles", "late", "missing", "next", "received")

    def __init__(self, first: int | None) -> None:
        self.next = first
        self.missing: set[int] = set()
        self.reset()

    def reset(self) -> None:
        """Count from zero; what is due next stays."""
        self.missing.clear()
        self.received: int = 0
        self.doubles: int = 0
        self.late: int = 0

    def take(self, number: int) -> str:
        """Take the next number; return the fault in words, or nothing."""
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
