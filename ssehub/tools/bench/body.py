"""Body: decodes an HTTP/1.1 response: removes the head and the framing in chunks.

It is fed with data. ``http.client``, which the client uses, reads from a file object and blocks.
"""

from __future__ import annotations

#: Maximum number of bytes of a head, or of the line before a chunk.
_LONGEST = 1 << 16


class Body:
    """Decodes one response. Without chunks or a length it lasts until the connection closes.

    :ivar status: the status code; 0 until the head is complete.
    :ivar ended: whether the response is complete.
    """

    __slots__ = ("_chunked", "_due", "_rest", "ended", "keeps", "reason", "status", "type")

    def __init__(self) -> None:
        self.status: int = 0
        self.reason: str = ""
        #: The content type without its parameters.
        self.type: str = ""
        self.ended: bool = False
        #: Whether another request may be sent on the connection.
        self.keeps: bool = False
        self._chunked = False
        #: Number of bytes still to come of the chunk or the body. A chunk includes the line break after it.
        self._due: int | None = None
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Process received bytes, and return the decoded part of the body.

        :raises ValueError: if the response is not HTTP.
        """
        if not self.status:
            # On a reused connection a line break of the previous response's chunks may be left.
            head, found, data = (self._rest + data).lstrip(b"\r\n").partition(b"\r\n\r\n")
            self._rest = b"" if found else head
            if len(self._rest) > _LONGEST or not b"HTTP/1.".startswith(head[:7]) or (found and len(head) < 12):
                raise ValueError("the response is not HTTP/1.1")
            if not found:
                return b""
            self._take_head(head.decode("latin-1"))
        if self._chunked:
            return self._chunks(self._rest + data)
        if self._due is None:
            return data
        data = data[: self._due]
        self._due -= len(data)
        self.ended = not self._due
        return data

    def _take_head(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        _, status, self.reason = [*first.split(" ", 2), ""][:3]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.status = int(status)
        self.type = headers.get("content-type", "").partition(";")[0].strip().lower()
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self.keeps = first.startswith("HTTP/1.1") and headers.get("connection", "").lower() != "close"
        if not self._chunked and "content-length" in headers:
            self._due = int(headers["content-length"])
        if self.status in (204, 304):
            self._due, self._chunked = 0, False
        self.ended = self._due == 0

    def _chunks(self, data: bytes) -> bytes:
        """Return the data of complete chunks, and of the beginning of the last one."""
        found = []
        at = 0
        while not self.ended:
            if self._due is None:
                line = data.find(b"\r\n", at)
                if line < 0:
                    if len(data) - at > _LONGEST:
                        raise ValueError("the chunks of the response are not HTTP/1.1")
                    break
                size = int(data[at:line].partition(b";")[0], 16)
                at = line + 2
                self.ended = size == 0
                self._due = size + 2
            else:
                piece = data[at : at + self._due]
                if not piece:
                    break
                at += len(piece)
                # The last two bytes of a chunk are its line break.
                found.append(piece[: max(0, self._due - 2)])
                self._due -= len(piece)
                self._due = self._due or None
        self._rest = data[at:]
        return b"".join(found)
