"""Compressing: what a middleware does to streams that knows nothing of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

#: Of zlib: the window of 32 KiB, in the format of gzip (RFC 1952).
_GZIP = 16 + zlib.MAX_WBITS


def compressed(app: Any, is_flushed: bool) -> Any:
    """Compress ``/events`` of an application.

    :param is_flushed: whether each chunk leaves at once; otherwise it waits until there is enough to compress.
    """

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if environ["PATH_INFO"] != "/events":
            yield from app(environ, start_response)
            return

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("Content-Encoding", "gzip")], exc_info)

        packer = zlib.compressobj(wbits=_GZIP)
        body = app(environ, start)
        try:
            for chunk in body:
                packed = packer.compress(chunk)
                yield packed + packer.flush(zlib.Z_SYNC_FLUSH) if is_flushed else packed
            yield packer.flush()
        finally:
            body.close()

    return application
