"""Nonces: the nonces of the entries that a history holds or has dropped.

If a log can be rolled back and rewritten, a reader's place is compared with the log by its nonce, even if the entry
there is no longer held. A nonce needs only four bytes, so a history can keep more nonces than entries.
"""

from __future__ import annotations

from array import array

#: At least this many of the newest nonces are kept, and at most twice as many.
_KEPT = 1 << 18


class Nonces:
    """The nonces of entries, by offset, without holes. Not thread-safe.

    :param first: the offset of the first nonce.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self._nonces = array("I")

    def append(self, nonce: str) -> None:
        """Add the nonce of the next offset, and forget old ones."""
        self._nonces.append(int(nonce, 16))
        if len(self._nonces) > 2 * _KEPT:
            del self._nonces[:_KEPT]
            self._first += _KEPT

    def get(self, offset: int) -> str | None:
        """Return the nonce of an offset; None if it was forgotten, or was not added yet."""
        at = offset - self._first
        return f"{self._nonces[at]:08x}" if 0 <= at < len(self._nonces) else None
