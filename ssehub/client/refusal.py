"""Refusal: what a response is that is no event stream."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import requests

from ssehub.client.backoff import LONGEST
from ssehub.exceptions import SSEHubError


class StreamRefused(SSEHubError, requests.HTTPError):
    """The server answered, and not with an event stream. ``response`` is its answer; only its head was read."""


def check_stream(response: requests.Response) -> None:
    """Accept the head of an event stream.

    "If res's status is not 200, or if res's `Content-Type` is not `text/event-stream`, then fail the connection."
    (WHATWG HTML 9.2.3)

    :raises StreamRefused: if it is anything else.
    """
    if response.status_code != 200:
        raise StreamRefused(f"{response.status_code} {response.reason} from {response.url}", response=response)
    # A MIME type's essence: its parameters, a charset above all, do not matter; nor does case.
    essence = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if essence != "text/event-stream":
        kind = essence or "something without a type"
        raise StreamRefused(f"not an event stream but {kind} from {response.url}", response=response)


def retry_after(response: requests.Response) -> float:
    """Return the seconds a server asks to stay away for, in either form of RFC 9110 10.2.3; 0 if it does not."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:20]), LONGEST)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - time.time()), LONGEST)
    except (ValueError, TypeError, OverflowError):
        return 0.0
