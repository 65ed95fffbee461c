"""LineBuffer: joins the chunks of an event stream into whole lines, and keeps the beginning of the next line."""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"
#: The first bytes of a line, enough to recognize its field: the longest name that matters is "event".
_NAME = 8


class LineBuffer:
    """The beginning of the current line of a stream. Not thread-safe.

    :param limit: maximum number of bytes of a line.

    :ivar pieces: the beginning of the current line, in pieces. To join them at each chunk would take quadratic time.
    :ivar began: whether the stream has begun: what has arrived is more than the beginning of a byte order mark.
    :ivar after_cr: whether the last byte was a carriage return.
    :ivar is_cut: whether the current line was too long, so that only its first bytes are kept.
    """

    __slots__ = ("_held", "_limit", "after_cr", "began", "is_cut", "pieces")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self.pieces: list[bytes] = []
        self.began: bool = False
        self.after_cr: bool = False
        self.is_cut: bool = False

    @property
    def is_too_long(self) -> bool:
        """Whether the kept beginning of a line is longer than a line may be."""
        return self._held > self._limit

    def take(self, chunk: bytes) -> bytes:
        """Return the lines that end in this chunk, each with a line feed at its end. Keep the rest."""
        if self.after_cr and chunk:
            # "A U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF) character pair" is one line end. The CR was the last
            # byte of the chunk before, and has ended the line already.
            self.after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if not self.began:
            # "One leading U+FEFF BYTE ORDER MARK character must be ignored if any are present." It does not count
            # towards the limit either.
            chunk = b"".join([*self.pieces, chunk])
            self.pieces, self._held = [], 0
            self.began = len(chunk) >= len(_BOM) or not _BOM.startswith(chunk)
            chunk = chunk.removeprefix(_BOM)
        end = chunk.rfind(b"\n") + 1
        end = chunk.rfind(b"\r", end) + 1 or end
        if not end:
            self.hold(chunk)
            return b""
        self.after_cr = chunk[-1] == 13
        whole = self._with_beginning(chunk[:end])
        self.is_cut = False
        self.hold(chunk[end:])
        return whole

    def hold(self, rest: bytes) -> None:
        """Keep the beginning of a line."""
        if rest and not self.is_cut:
            self.pieces.append(rest)
            self._held += len(rest)

    def cut(self) -> None:
        """Cut the kept beginning of a line to the bytes that tell its field."""
        start = b"".join(self.pieces)[:_NAME]
        self.pieces, self._held, self.is_cut = [start], len(start), True

    def find_too_long(self, whole: bytes) -> tuple[int, int] | None:
        """Return where the first line that is too long begins and ends.

        Lines that arrive in one chunk are checked, too: the result must not depend on how the stream is split.
        """
        start = 0
        while len(whole) - start > self._limit:
            end = whole.find(b"\n", start)
            if end - start > self._limit:
                return start, end
            start = end + 1
        return None

    def _with_beginning(self, lines: bytes) -> bytes:
        """Put the kept beginning before the lines, and replace all line ends with line feeds."""
        if b"\r" in lines:
            lines = lines.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self.pieces:
            lines = b"".join([*self.pieces, lines])
            self.pieces, self._held = [], 0
        return lines


def field_name(line: bytes) -> bytes:
    """Return the name of a line's field, if it is short enough to matter."""
    return line[:_NAME].partition(b":")[0]
