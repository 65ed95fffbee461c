"""Refusal: what a response is that is no event stream."""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from datetime import timezone
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests

from ssehub.backoff import LONGEST, SPREAD
from ssehub.client.body import beginning
from ssehub.client.printable import printable
from ssehub.exceptions import SSEHubError

#: Statuses that say "not now": RFC 9110 15.5.9 (408), RFC 8470 (425), RFC 6585 (429), servers' and proxies' own, among
#: them Cloudflare's 520 to 524, and 529 of services that are overloaded.
RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
#: Bytes of an answer that are read for its reason, and characters that are shown of it, at the most.
_SHORT = 4096
_SHOWN = 500
#: Seconds to wait for them.
_SOON = 1.0
#: Where JSON has a reason. The first is of many services; the next two are of RFC 9457.
_REASONS = ("error", "detail", "title", "message", "error_description", "reason")
#: The values of a header, which are separated by commas outside quotes, and a MIME type.
_VALUES = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^",]|")+')
_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+")
#: What separates the parts of a text of urllib3's, but not those of "[SSL: NAME]".
_LAST_PART = re.compile(r": (?![A-Z0-9_]+\])")
#: An address within a text.
_ADDRESS = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>]*")


class StreamRefused(SSEHubError, requests.HTTPError):
    """The server answered, and not with an event stream. ``response`` is its answer; a short reason was read of it."""


def check_stream(response: requests.Response) -> None:
    """Accept the head of an event stream.

    "If res's status is not 200, or if res's `Content-Type` is not `text/event-stream`, then fail the connection."
    (WHATWG HTML 9.2.3)

    :raises StreamRefused: if it is anything else.
    """
    if response.status_code != 200:
        seen = f"{response.status_code} {shown(response.reason or '')} from {bare(response.url)}"
        said = f"it is at {bare(response.headers['Location'])}" if response.is_redirect else excerpt(response)
        raise StreamRefused(f"{seen}: {said}" if said else seen, response=response)
    if essence(response) != "text/event-stream":
        kind = essence(response) or "something without a type"
        raise StreamRefused(f"not an event stream but {kind} from {bare(response.url)}", response=response)


def essence(response: requests.Response) -> str:
    """Return the essence of a response's MIME type: parameters, a charset above all, do not matter, nor does case.

    A header that was sent twice has several values. "For each value of values: let temporaryMimeType be the result of
    parsing value. If temporaryMimeType is failure or its essence is "*/*", then continue. Set mimeType to
    temporaryMimeType." (WHATWG Fetch 2.2.2) So the last one that is valid counts.
    """
    values = response.headers.get("Content-Type", "")
    names = [value.partition(";")[0].strip().lower() for value in _VALUES.findall(values)]
    valid = [name for name in names if _TYPE.fullmatch(name) and name != "*/*"]
    return valid[-1] if valid else ""


def excerpt(response: requests.Response) -> str:
    """Return what the beginning of a JSON object or a text says of why it was refused; empty if it is anything else.

    It waits a second for it at the most, and reads some kilobytes. ``response.text`` has no more than they.
    """
    kind = essence(response)
    text = beginning(response, _SHORT, _SOON).decode("utf-8", "replace")
    if kind == "text/plain":
        said = text
    elif kind == "application/json" or kind.endswith("+json"):
        said = _reason_in(text)
    else:
        said = ""
    said = shown(said)
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."


def _reason_in(text: str) -> str:
    """Return the reason that a JSON object states: an OpenAI-like ``error.message``, ``detail`` of RFC 9457, others."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text  # what is cut off is no JSON any more
    if isinstance(value, dict):
        inner = value.get("error")
        value = inner if isinstance(inner, dict) else value
        for name in _REASONS:
            if isinstance(said := value.get(name), str) and said.strip():
                return said
    return text


def retry_after(response: requests.Response) -> float:
    """Return the seconds a server asks to stay away for, in either form of RFC 9110 10.2.3; 0 if it does not.

    They are spread by a tenth, so that its clients do not come back in one instant.
    """
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        seconds = float(value[:20])
    elif (until := _moment(value)) is not None:
        # By the server's own clock, if it shows it: this machine's may be wrong.
        now = _moment(response.headers.get("Date", ""))
        seconds = max(0.0, until - (time.time() if now is None else now))
    else:
        return 0.0
    return min(seconds * random.uniform(1, 1 + SPREAD), LONGEST)


def _moment(date: str) -> float | None:
    """Return the moment of an HTTP date, as ``time.time()`` does; None if it is none. Without a zone it is in UTC."""
    try:
        parsed = parsedate_to_datetime(date)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def shown(text: str) -> str:
    """Return a text of somebody else's as it may be shown: on one line, without control characters."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def bare(url: str) -> str:
    """Return an address as far as it may be shown: without a name, a password or a query, which may hold a token."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises if there is a password with a slash in it
        if parts.netloc:
            return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return "(not shown, for it may hold a password)" if "@" in url else url.partition("?")[0].partition("#")[0]


def reason(error: BaseException) -> str:
    """Return in a few words what an error was about, as a terminal or a log may show it.

    An address in it has neither its password nor its query. The errors of ``requests`` have many words, and the query
    of the address among them. Those that a :class:`~ssehub.Client` raises, or gives to ``on_error``, have these few.

    :param error: any error; one of another kind is returned as its text.
    """
    below = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.ConnectionError) and below is not None:
        request = error.request
        host = urlsplit(request.url).netloc.rpartition("@")[2] if request is not None and request.url else "the server"
        return printable(f"{host}: {_LAST_PART.split(str(below))[-1]}")
    if isinstance(error, requests.RequestException):
        return printable(_ADDRESS.sub(lambda found: bare(found[0]), str(error)))
    return printable(str(error))


def veil(error: requests.RequestException, url: str) -> None:
    """Take out of an error what may be secret, in place: those who show it do not know what is in it.

    :param url: the address that was asked for.
    """
    below = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.exceptions.InvalidHeader):
        text = "a header of the request has a line break in it, or begins with a blank"
    else:
        text = reason(error) if below is not None else str(error).replace(url, bare(url))
        text = _ADDRESS.sub(lambda found: bare(found[0]), text)
    error.args = (text,)
    # What it was made of shows the query again; what is below that does not.
    error.__cause__ = below if isinstance(below, BaseException) else None
    error.__suppress_context__ = True
