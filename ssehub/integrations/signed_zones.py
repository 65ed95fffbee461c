"""Signed zones: the address of a stream that a page may open because the application has written it into the page.

The application signs the zones together with the client id, when it renders the page. A framework's own signer makes
and checks the signature, with the time in it. So an address is no use for other zones, for another client, or later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal
from urllib.parse import urlencode

from ssehub.html import datastar, htmx, turbo
from ssehub.log.packet import check_name
from ssehub.server.settings import check_number

#: What signatures are for; the salt of the signer. A signature of the application for anything else does not fit.
PURPOSE = "ssehub.zones"
#: Seconds for which a signature is valid: a browser reconnects with the address of the page, so it covers the time for
#: which a page is left open. Precedent: none; a day is a working day and the night after it.
DEFAULT_AGE = 86400
#: Names of parameters in the address.
ZONE, SIGNATURE, CURSOR = "zone", "signature", "lastEventId"
#: The zones that may be followed at a built-in view without a signature or a function that decides.
PUBLIC = ("default",)
#: Why a stream is refused.
NOT_VALID = "the signature of the address is not valid for these zones and this client: load the page again"
EXPIRED = "the signature of the address has expired: load the page again"
#: What opens the stream of a page: Turbo, Datastar, htmx 2 or htmx 4.
Kind = Literal["turbo", "datastar", "htmx", "htmx4"]
_SOURCES: dict[str, Callable[[str], str]] = {
    "turbo": turbo.source,
    "datastar": datastar.source,
    "htmx": htmx.source,
    "htmx4": lambda url: htmx.source(url, version=4),
}


def check_age(given: Any) -> int:
    """Check the setting for how long signatures are valid, in whole seconds. None: the default.

    :raises ValueError: if it is not positive.
    :raises TypeError: if it is not an int.
    """
    check_number("SIGNATURE_AGE", given, (int,), optional=True)
    return DEFAULT_AGE if given is None else int(given)


def statement(zones: Sequence[str], client_id: str | None) -> str:
    """Return the text that is signed: that this client may follow these zones."""
    return json.dumps([list(zones), client_id], separators=(",", ":"))


def address(url: str, zones: Sequence[str], signature: str | None, cursor: str) -> str:
    """Return the address of a stream.

    :param url: the address of the view, which may have a query.
    :param signature: None if the view needs no signature.
    """
    query = [*((ZONE, zone) for zone in zones), *(((SIGNATURE, signature),) if signature else ()), (CURSOR, cursor)]
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"


def source(kind: str, url: str) -> str:
    """Return what opens a stream in a page: an element of Turbo, or the attributes of an element.

    :raises ValueError: if there is no such kind.
    """
    if kind not in _SOURCES:
        raise ValueError(f"kind must be one of {', '.join(_SOURCES)}, not {kind!r}")
    return _SOURCES[kind](url)


def zones_of(zone: str | Sequence[str]) -> tuple[str, ...]:
    """Return the zones that were given, as a tuple.

    :raises ValueError: if a name is invalid.
    """
    return tuple(check_name("zone", name) for name in ((zone,) if isinstance(zone, str) else zone))


def seconds_left(age: int, seconds_since: float) -> float | None:
    """Return the seconds for which an authentic signature is still valid, or None if it has expired.

    A time in the future is that of another machine, whose clock is ahead.
    """
    left = age - max(0.0, seconds_since)
    return left if left > 0 else None
