"""Publish: sends a message to a hub that runs as a service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import requests

from ssehub.client.body import beginning
from ssehub.client.responses import veil

_TIMEOUT = (3.05, 30.0)
#: Maximum number of bytes of a response that are read, and of characters of a reason in it.
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
    post = session.post if session is not None else requests.post
    headers = {**authorization, **(headers or {})}
    # A redirected POST may turn into a GET without the message, so redirects are not followed.
    try:
        response = post(url, json=dict(fields), headers=headers, timeout=_TIMEOUT, allow_redirects=False, stream=True)
    except requests.RequestException as error:
        veil(error, url)
        raise
    with response:
        content = beginning(response, _LONGEST, _TIMEOUT[1])
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if response.status_code != 200:
        reason = str(answer.get("error") or "")[:_LONGEST_REASON] if isinstance(answer, dict) else ""
        if response.is_redirect:
            reason = f"{response.status_code}, the service is now at {response.headers['Location']}: use that address"
        raise requests.HTTPError(reason or f"{response.status_code} {response.reason}", response=response)
    if not isinstance(answer, dict):
        raise requests.HTTPError("the response is not that of an ssehub service", response=response)
    return answer
