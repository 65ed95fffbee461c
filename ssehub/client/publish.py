"""Publish: sends a message to a hub that runs as a service."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import requests

from ssehub.client.body import beginning
from ssehub.client.cancellation import Cancellation
from ssehub.client.printable import printable
from ssehub.client.responses import bare
from ssehub.client.transport import Timeout, Transport

_TIMEOUT = Timeout()
#: Seconds that reading the answer may take in total.
_READING = 30.0
#: Bytes of an answer that are read, and characters of a reason in it, at the most.
_LONGEST, _LONGEST_REASON = 65_536, 2000


def publish(
    url: str,
    fields: Mapping[str, Any],
    token: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    session: requests.Session | None = None,
) -> dict[str, Any]:
    """Send one message to a service.

    :param url: the service's ``/send``.
    :param fields: the JSON fields of ``POST /send``.
    :param token: the service's token, if it has one.
    :param headers: more headers of the request.
    :param session: a session, so that many messages can share a connection. By default each message has its own.
    :returns: the response of the service: ``id`` and ``queued``.
    :raises requests.RequestException: if the service does not respond, or refuses the message. The text has the reason.
    """
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    # A redirected POST may become a GET, without the message.
    options = {"json": dict(fields), "headers": {**authorization, **(headers or {})}, "allow_redirects": False}
    with (
        contextlib.closing(Transport(session, _TIMEOUT)) as transport,
        transport.open(Cancellation(), "POST", url, **options) as stream,
    ):
        response = stream.response
        content = beginning(response, _LONGEST, _READING)
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if response.status_code != 200:
        reason = str(answer.get("error") or "")[:_LONGEST_REASON] if isinstance(answer, dict) else ""
        if response.is_redirect:
            reason = (
                f"{response.status_code}, the service is now at {bare(response.headers['Location'])}: use that address"
            )
        text = printable(reason or f"{response.status_code} {response.reason}")
        raise requests.HTTPError(text, response=response)
    if not isinstance(answer, dict):
        raise requests.HTTPError("the response is not that of an ssehub service", response=response)
    return answer
