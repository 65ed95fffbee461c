"""Following a stream with ``requests``, and sending to a service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import requests
import urllib3

from ssehub.wire import Decoder, Message

#: Seconds for the connection and for each read; a hub's heartbeat comes every 15.
_TIMEOUT = (3.05, 45.0)


def follow(url: str, decoder: Decoder) -> Iterator[Message]:
    """Yield the messages of one connection to an event stream as they arrive, until it ends.

    :param url: where the stream is.
    :param decoder: a new one for each connection; its last event id is where to go on from.
    :raises requests.RequestException: if the connection fails, the status is not 200, or the type is another.
    """
    headers: dict[str, str | bytes] = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
    headers["Accept-Encoding"] = "identity"
    # As bytes: requests would send a str as latin-1, and refuse one that starts with a blank.
    if last_id := decoder.last_event_id.encode().strip(b" \t"):
        headers["Last-Event-ID"] = last_id
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code != 200:
            raise requests.HTTPError(f"{response.status_code} {response.reason}", response=response)
        essence = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if essence != "text/event-stream":
            raise requests.HTTPError(f"not an event stream but {essence or 'of no type'}", response=response)
        # read1 gives what has arrived; requests' own iterators wait for more where the body is not chunked.
        try:
            while chunk := response.raw.read1(65536):
                yield from decoder.feed(chunk)
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError(error, response=response) from error


def publish(url: str, fields: Mapping[str, Any], token: str | None = None) -> dict[str, Any]:
    """Send one message to a service.

    :param url: the service's ``/send``.
    :param fields: as ``POST /send`` takes them.
    :param token: the service's token, if it has one.
    :returns: the service's answer: ``id`` and ``queued``.
    :raises requests.RequestException: if the service does not answer, or refuses; then with its reason.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    response = requests.post(url, json=dict(fields), headers=headers, timeout=_TIMEOUT)
    try:
        answer = response.json()
    except ValueError:
        answer = {}
    if response.status_code != 200:
        reason = answer.get("error") if isinstance(answer, dict) else None
        raise requests.HTTPError(reason or f"{response.status_code} {response.reason}", response=response)
    if not isinstance(answer, dict):
        raise requests.HTTPError("the answer is not that of an ssehub service", response=response)
    return answer
