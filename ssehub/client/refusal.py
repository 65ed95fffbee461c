"""Refusal: what a response is that is no event stream."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests

from ssehub.backoff import LONGEST
from ssehub.client.printable import printable
from ssehub.exceptions import SSEHubError

#: Bytes of an answer that is read for its reason, at the most.
_SHORT = 2000


class StreamRefused(SSEHubError, requests.HTTPError):
    """The server answered, and not with an event stream. ``response`` is its answer; a short reason was read of it."""


def check_stream(response: requests.Response) -> None:
    """Accept the head of an event stream.

    "If res's status is not 200, or if res's `Content-Type` is not `text/event-stream`, then fail the connection."
    (WHATWG HTML 9.2.3)

    :raises StreamRefused: if it is anything else.
    """
    if response.status_code != 200:
        said = excerpt(response)
        seen = f"{response.status_code} {response.reason} from {bare(response.url)}{f': {said}' if said else ''}"
        raise StreamRefused(seen, response=response)
    if essence(response) != "text/event-stream":
        kind = essence(response) or "something without a type"
        raise StreamRefused(f"not an event stream but {kind} from {bare(response.url)}", response=response)


def essence(response: requests.Response) -> str:
    """Return the essence of a response's MIME type: parameters, a charset above all, do not matter, nor does case."""
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def excerpt(response: requests.Response) -> str:
    """Return what a short JSON object or text says of why it was refused; empty if it is anything else."""
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal() or not 0 < int(length[:9]) <= _SHORT:
        return ""  # what has no length may never end
    kind = essence(response)
    try:
        if kind == "application/json":
            value = response.json()
            said = value.get("error") if isinstance(value, dict) else ""
        else:
            said = response.text if kind == "text/plain" else ""
    except (ValueError, requests.RequestException):
        return ""
    return " ".join(said.split()) if isinstance(said, str) else ""


def retry_after(response: requests.Response) -> float:
    """Return the seconds a server asks to stay away for, in either form of RFC 9110 10.2.3; 0 if it does not."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:20]), LONGEST)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - time.time()), LONGEST)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def bare(url: str) -> str:
    """Return an address as far as it may be shown: without a name, a password or a query, which may hold a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def reason(error: BaseException) -> str:
    """Return in a few words what an error was about, as a terminal or a log may show it.

    ``requests`` says it in many words, with the address's query in them.
    """
    below = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.ConnectionError) and below is not None:
        request = error.request
        host = urlsplit(request.url).netloc.rpartition("@")[2] if request is not None and request.url else "the server"
        return printable(f"{host}: {str(below).rpartition(': ')[2]}")
    return printable(str(error))
