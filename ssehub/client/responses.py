"""Responses: decides whether a response is an event stream, and describes it if it is not."""

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

#: Statuses of temporary failures: RFC 9110 15.5.9 (408), RFC 8470 (425), RFC 6585 (429), those of servers and proxies,
#: including Cloudflare's 520 to 524, and 529 for overloaded services.
RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
#: Maximum number of bytes of a response that are searched for a reason, and of characters of the reason that are shown.
_SHORT = 4096
_SHOWN = 500
#: Maximum number of seconds to wait for these bytes.
_SOON = 1.0
#: JSON fields that may contain a reason. Many services use the first; the next two are of RFC 9457.
_REASONS = ("error", "detail", "title", "message", "error_description", "reason")
#: The values of a header, separated by commas outside quotes, and a MIME type.
_VALUES = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^",]|")+')
_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+")
#: The separator between the parts of an error text of urllib3. It does not match within "[SSL: NAME]".
_LAST_PART = re.compile(r": (?![A-Z0-9_]+\])")
#: A URL within a text.
_ADDRESS = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>]*")
#: What urllib3 says of an address that it cannot parse, with what it took for the host and the port. That is a part of
#: the password, if there is a slash in it.
_UNPARSED = re.compile(r"Failed to parse: .*", re.DOTALL)


class StreamRefused(SSEHubError, requests.HTTPError):
    """The server's response was not an event stream. It is the attribute ``response``; the text has a short reason."""


def check_stream(response: requests.Response) -> None:
    """Check that a response is an event stream, by its status and headers.

    "If res's status is not 200, or if res's `Content-Type` is not `text/event-stream`, then fail the connection."
    (WHATWG HTML 9.2.3)

    :raises StreamRefused: if it is not.
    """
    if response.status_code != 200:
        seen = f"{response.status_code} {shown(response.reason or '')} from {bare(response.url)}"
        said = f"it is at {bare(response.headers['Location'])}" if response.is_redirect else excerpt(response)
        raise StreamRefused(f"{seen}: {said}" if said else seen, response=response)
    if essence(response) != "text/event-stream":
        kind = essence(response) or "a response without a type"
        raise StreamRefused(f"not an event stream but {kind} from {bare(response.url)}", response=response)


def essence(response: requests.Response) -> str:
    """Return the essence of a response's MIME type, in lower case and without parameters such as the charset.

    A header that was sent twice has several values. "For each value of values: let temporaryMimeType be the result of
    parsing value. If temporaryMimeType is failure or its essence is "*/*", then continue. Set mimeType to
    temporaryMimeType." (WHATWG Fetch 2.2.2) So the last valid value counts.
    """
    values = response.headers.get("Content-Type", "")
    names = [value.partition(";")[0].strip().lower() for value in _VALUES.findall(values)]
    valid = [name for name in names if _TYPE.fullmatch(name) and name != "*/*"]
    return valid[-1] if valid else ""


def excerpt(response: requests.Response) -> str:
    """Return the reason of a refusal from the beginning of a JSON object or a text; empty for other content.

    It waits one second at most, and reads some kilobytes. After this, ``response.text`` contains only these.
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
    """Return the reason in a JSON object: ``error.message`` as in OpenAI's API, ``detail`` of RFC 9457, or others."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text  # truncated JSON cannot be decoded
    if isinstance(value, dict):
        inner = value.get("error")
        value = inner if isinstance(inner, dict) else value
        for name in _REASONS:
            if isinstance(said := value.get(name), str) and said.strip():
                return said
    return text


def retry_after(response: requests.Response) -> float:
    """Return the seconds in ``Retry-After``, in either form of RFC 9110 10.2.3; 0 without this header.

    A random part of up to a tenth is added, so that the clients of a server do not reconnect at the same instant.
    """
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        seconds = float(value[:20])
    elif (until := _moment(value)) is not None:
        # Relative to the server's own clock, if the response has a date, because this machine's clock may be wrong.
        now = _moment(response.headers.get("Date", ""))
        seconds = max(0.0, until - (time.time() if now is None else now))
    else:
        return 0.0
    return min(seconds * random.uniform(1, 1 + SPREAD), LONGEST)


def _moment(date: str) -> float | None:
    """Return the time of an HTTP date in seconds since 1970; None if it is invalid. Without a zone, UTC is assumed."""
    try:
        parsed = parsedate_to_datetime(date)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def shown(text: str) -> str:
    """Return a text from another program so that it is safe to print: on one line, without control characters."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def bare(url: str) -> str:
    """Return an address without user name, password and query, any of which may contain a secret."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises an error if there is a password with a slash
        if parts.netloc:
            return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")
    return "(not shown, because it may contain a password)" if "@" in url else printable(re.split("[?#]", url)[0])


def reason(error: BaseException) -> str:
    """Return a short description of an error that is safe to print or log.

    Addresses in it have no password and no query. The errors of ``requests`` have long texts, which include the query.
    Errors that a :class:`~ssehub.Client` raises, or passes to ``on_error``, already have the short text.

    :param error: any error. For an error of another kind its text is returned.
    """
    below = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.ConnectionError) and below is not None:
        request = error.request
        host = urlsplit(request.url).netloc.rpartition("@")[2] if request is not None and request.url else "the server"
        return printable(f"{host}: {_LAST_PART.split(str(below))[-1]}")
    if isinstance(error, requests.RequestException):
        return printable(_without_secrets(str(error)))
    return printable(str(error))


def _without_secrets(text: str) -> str:
    text = _UNPARSED.sub("an address, perhaps that of a proxy, cannot be parsed", text)
    return _ADDRESS.sub(lambda found: bare(found[0]), text)


def veil(error: requests.RequestException, url: str) -> None:
    """Remove secrets from an error, in place, because code that prints it does not know about them.

    :param url: the address of the request.
    """
    below = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.exceptions.InvalidHeader):
        unfit = "has a line break in it, begins with a blank, or does not fit latin-1"
        text = f"a header of the request, perhaps that of auth, {unfit}"
    else:
        text = reason(error) if below is not None else str(error).replace(url, bare(url))
        text = _without_secrets(text)
    error.args = (printable(text),)
    # What it was made of shows the query again; what is below that does not.
    error.__cause__ = below if isinstance(below, BaseException) else None
    error.__suppress_context__ = True
